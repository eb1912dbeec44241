import struct
from pathlib import Path

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.data.pcd import decompress_lzf, read_pcd, unused_fields

XYZ = np.array([[0.5, -1.25, 2.0], [0.1, 0.2, 0.3], [-3.0, 0.0, 1e-3]], np.float32)
RGB = np.array([[255, 0, 51], [0, 102, 255], [1, 2, 3]], np.uint32)
NORMALS = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], np.float32)
PACKED = (RGB[:, 0] << 16) | (RGB[:, 1] << 8) | RGB[:, 2]


def header(encoding: str, num_points: int = 3, color_type: str = "F") -> bytes:
    return (
        "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb normal_x normal_y normal_z\n"
        f"SIZE 4 4 4 4 4 4 4\nTYPE F F F {color_type} F F F\nCOUNT 1 1 1 1 1 1 1\n"
        f"WIDTH {num_points}\nHEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\n"
        f"POINTS {num_points}\nDATA {encoding}\n"
    ).encode()


def columns(xyz: np.ndarray = XYZ) -> list[np.ndarray]:
    return [*xyz.T, PACKED.view(np.float32), *NORMALS.T]


def compress_literally(data: bytes) -> bytes:
    """A valid LZF stream of literal runs only."""
    runs = [data[i : i + 32] for i in range(0, len(data), 32)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def write(path: Path, encoding: str, xyz: np.ndarray = XYZ) -> Path:
    if encoding == "ascii":
        rows = zip(*[*xyz.T, PACKED, *NORMALS.T], strict=True)
        body = "\n".join(" ".join(map(str, row)) for row in rows).encode()
        path.write_bytes(header(encoding, color_type="U") + body)
    elif encoding == "binary":
        table = np.stack(columns(xyz), axis=-1).astype("<f4")
        path.write_bytes(header(encoding) + table.tobytes())
    else:
        raw = b"".join(c.astype("<f4").tobytes() for c in columns(xyz))
        packed = compress_literally(raw)
        sizes = struct.pack("<II", len(packed), len(raw))
        path.write_bytes(header(encoding) + sizes + packed)
    return path


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_all_encodings_give_the_same_points(tmp_path, encoding):
    points = read_pcd(write(tmp_path / "a.pcd", encoding))
    np.testing.assert_array_equal(points.xyz, XYZ)
    np.testing.assert_allclose(points.rgb, RGB / 255, atol=1e-6)
    np.testing.assert_array_equal(points.normals, NORMALS)
    assert {a.dtype for a in (points.xyz, points.rgb, points.normals)} == {
        np.dtype(np.float32)
    }


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
def test_points_that_are_not_finite_are_dropped(tmp_path, encoding):
    xyz = XYZ.copy()
    xyz[1, 2] = np.nan
    points = read_pcd(write(tmp_path / "a.pcd", encoding, xyz))
    np.testing.assert_array_equal(points.xyz, XYZ[[0, 2]])
    np.testing.assert_array_equal(points.normals, NORMALS[[0, 2]])


def test_no_usable_point_is_an_error(tmp_path):
    path = write(tmp_path / "a.pcd", "binary", np.full_like(XYZ, np.nan))
    with pytest.raises(InputError, match="no usable point"):
        read_pcd(path)
    path.write_bytes(header("binary", num_points=0))
    with pytest.raises(InputError, match="no usable point"):
        read_pcd(path)


@pytest.mark.parametrize("encoding", ["ascii", "binary", "binary_compressed"])
@pytest.mark.parametrize("keep", [0, 40, 0.9])
def test_cut_short_file_is_an_error_that_names_it(tmp_path, encoding, keep):
    path = write(tmp_path / "a.pcd", encoding)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep != 0.9 else len(data) * keep)])
    with pytest.raises(InputError, match=r"a\.pcd .*cut short"):
        read_pcd(path)


def test_file_without_coordinates_is_an_error(tmp_path):
    path = tmp_path / "a.pcd"
    path.write_bytes(header("binary").replace(b"FIELDS x", b"FIELDS i") + bytes(84))
    with pytest.raises(InputError, match="lacks 'x'"):
        read_pcd(path)


def test_points_alone_are_grey_and_without_normals(tmp_path):
    path = tmp_path / "a.pcd"
    path.write_text(
        "FIELDS x y z\nSIZE 8 8 8\nTYPE F F F\nWIDTH 2\nHEIGHT 1\nDATA ascii\n"
        "0 0 1\n0 0 2\n"
    )
    points = read_pcd(path)
    assert points.normals is None
    assert (points.rgb == 0.5).all()
    assert points.xyz[:, 2].tolist() == [1, 2]


def test_padding_fields_are_skipped(tmp_path):
    point = np.dtype([("a", "<f4", 3), ("pad", "u1", 4), ("c", "<u4"), ("p2", "u1", 2)])
    data = np.zeros(3, point)
    data["a"], data["c"] = XYZ, PACKED
    path = tmp_path / "a.pcd"
    path.write_bytes(
        b"FIELDS x y z _ rgba _\nSIZE 4 4 4 1 4 1\nTYPE F F F U U U\n"
        b"COUNT 1 1 1 4 1 2\nWIDTH 3\nHEIGHT 1\nPOINTS 3\nDATA binary\n"
        + data.tobytes()
    )
    points = read_pcd(path)
    np.testing.assert_array_equal(points.xyz, XYZ)
    np.testing.assert_allclose(points.rgb, RGB / 255, atol=1e-6)


def write_colors(
    path: Path, fields: str, types: str, sizes: str, rows: list[str]
) -> Path:
    """Points at (0, 0, 1) as text, with the columns `fields` behind x y z."""
    count = len(fields.split())
    path.write_text(
        f"FIELDS x y z {fields}\nSIZE 4 4 4 {sizes}\nTYPE F F F {types}\n"
        f"COUNT {' '.join('1' * (3 + count))}\nWIDTH {len(rows)}\nHEIGHT 1\n"
        f"POINTS {len(rows)}\nDATA ascii\n" + "".join(f"0 0 1 {row}\n" for row in rows)
    )
    return path


OPAQUE = 0xFF000000 | 0x0166FF  # Needs all 32 bits.


@pytest.mark.parametrize("name", ["rgb", "rgba"])
@pytest.mark.parametrize(
    ("kind", "size", "text", "levels"),
    [
        ("F", 4, "16711680", (255, 0, 0)),  # PCL's own writer.
        ("F", 4, "4.2108e+06", (64, 64, 112)),  # The page that defines the format.
        ("F", 4, str(OPAQUE), (1, 102, 255)),
        ("F", 4, repr(np.uint32(0x0166FF).view(np.float32)), (1, 102, 255)),
        ("F", 4, "nan", (127.5, 127.5, 127.5)),
        ("F", 8, "16711680", (255, 0, 0)),
        ("U", 4, str(OPAQUE), (1, 102, 255)),
        ("I", 4, str(OPAQUE - 2**32), (1, 102, 255)),
        ("I", 4, str(OPAQUE), (1, 102, 255)),
        ("U", 8, "16711680", (255, 0, 0)),
    ],
)
def test_packed_colours_as_text(tmp_path, name, kind, size, text, levels):
    text = text.removeprefix("np.float32(").removesuffix(")")
    path = write_colors(tmp_path / "a.pcd", name, kind, str(size), [text])
    np.testing.assert_allclose(read_pcd(path).rgb[0], np.divide(levels, 255), atol=1e-6)


@pytest.mark.parametrize("fields", ["r g b", "red green blue"])
@pytest.mark.parametrize(
    ("kind", "size", "rows"),
    [
        ("U", 1, ["255 0 51", "0 102 255"]),
        ("I", 1, ["-1 0 51", "0 102 -1"]),
        ("U", 2, ["255 0 51", "0 102 255"]),
        ("U", 2, ["65535 0 13107", "0 26214 65535"]),
        ("F", 4, ["1.0 0 0.2", "0 0.4 1.0"]),
        ("F", 8, ["255.0 0 51", "0 102 255"]),
    ],
)
def test_colours_in_fields_of_their_own(tmp_path, fields, kind, size, rows):
    types, sizes = " ".join(kind * 3), " ".join(str(size) * 3)
    path = write_colors(tmp_path / "a.pcd", fields, types, sizes, rows)
    np.testing.assert_allclose(read_pcd(path).rgb, RGB[:2] / 255, atol=1e-6)
    assert unused_fields(path) == ()


def test_opaque_colours_keep_their_bits_in_binary(tmp_path):
    path = write(tmp_path / "a.pcd", "binary")
    data = path.read_bytes()
    start = data.index(b"DATA binary\n") + 12
    table = np.frombuffer(data[start:], "<u4").reshape(3, 7).copy()
    table[:, 3] |= 0xFF000000  # Not a number, as a float.
    path.write_bytes(data[:start] + table.tobytes())
    np.testing.assert_allclose(read_pcd(path).rgb, RGB / 255, atol=1e-6)


def test_colours_of_an_unknown_type_are_refused_and_other_fields_are_named(tmp_path):
    path = write_colors(tmp_path / "a.pcd", "rgb", "U", "2", ["7"])
    with pytest.raises(InputError, match="rgb of type uint16 is not known"):
        read_pcd(path)
    path = write_colors(tmp_path / "a.pcd", "intensity r", "F F", "4 4", ["1 2"])
    assert (read_pcd(path).rgb == 0.5).all()
    assert unused_fields(path) == ("intensity", "r")


def test_lzf_copies_may_overlap_what_they_write():
    # "ab", then 8 bytes from 2 back; then one from 10 back of length 7 + 2 + 1.
    stream = bytes([1]) + b"ab" + bytes([(6 << 5) | 0, 1]) + bytes([7 << 5, 1, 9])
    assert decompress_lzf(stream, 20) == b"ab" * 10
    with pytest.raises(ValueError, match="20 of 21"):
        decompress_lzf(stream, 21)
    with pytest.raises(ValueError, match="damaged"):
        decompress_lzf(bytes([1]) + b"ab" + bytes([6 << 5, 9]), 10)


def test_what_cannot_be_read_at_all_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"not a readable \.pcd point cloud"):
        read_pcd(tmp_path)
