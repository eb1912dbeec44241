"""Meshes survive their files in the order they had, and bad files are named."""

import numpy as np
import pytest

from npga_jax.core.errors import InputError
from npga_jax.core.mesh import Mesh, keep_largest, vertex_normals
from npga_jax.io.mesh_files import read_mesh, write_mesh
from npga_jax.io.mesh_ply import parse_ply

TRIANGLE = (b"0 0 0", b"1 0 0", b"0 1 0", b"0 0 1")


def _mesh(seed=0, num_vertices=40, num_faces=70):
    rng = np.random.default_rng(seed)
    normals = rng.standard_normal((num_vertices, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    return Mesh(
        vertices=rng.standard_normal((num_vertices, 3)).astype(np.float32),
        faces=rng.integers(0, num_vertices, (num_faces, 3)).astype(np.int32),
        normals=normals.astype(np.float32),
        colors=rng.integers(0, 256, (num_vertices, 3)).astype(np.uint8),
    )


def _assert_same(read, mesh):
    for name, ours, theirs in zip(Mesh._fields, mesh, read, strict=True):
        if ours is None:
            assert theirs is None, name
        else:
            assert theirs.dtype == ours.dtype, name
            np.testing.assert_array_equal(theirs, ours, err_msg=name)


@pytest.mark.parametrize("ending", ["ply", "obj"])
@pytest.mark.parametrize("with_normals", [False, True])
@pytest.mark.parametrize("with_colors", [False, True])
def test_round_trip(tmp_path, ending, with_normals, with_colors):
    mesh = _mesh()
    mesh = mesh._replace(
        normals=mesh.normals if with_normals else None,
        colors=mesh.colors if with_colors else None,
    )
    path = tmp_path / "new" / f"head.{ending}"
    write_mesh(path, *mesh)
    assert list(path.parent.iterdir()) == [path]
    # An .obj numbers its normals apart from its vertices, so they are not read.
    expected = mesh if ending == "ply" else mesh._replace(normals=None)
    _assert_same(read_mesh(path), expected)


def test_bytes_of_a_ply(tmp_path):
    path = tmp_path / "a.PLY"
    vertices = np.arange(9.0).reshape(3, 3)
    write_mesh(path, vertices, np.array([[0, 2, 1]]), colors=np.full((3, 3), 7, "u1"))
    header, body = path.read_bytes().split(b"end_header\n")
    assert header.decode().splitlines() == [
        "ply",
        "format binary_little_endian 1.0",
        "element vertex 3",
        *(f"property float {name}" for name in "xyz"),
        *(f"property uchar {name}" for name in ("red", "green", "blue")),
        "element face 1",
        "property list uchar int vertex_indices",
    ]
    assert len(body) == 3 * 15 + 13
    np.testing.assert_array_equal(np.frombuffer(body[:12], "<f4"), [0, 1, 2])
    assert body[12:15] == b"\7\7\7"
    np.testing.assert_array_equal(np.frombuffer(body[-12:], "<i4"), [0, 2, 1])


def test_lines_of_an_obj(tmp_path):
    path = tmp_path / "a.obj"
    vertices, faces = np.eye(3) * 0.5, np.array([[0, 1, 2]])
    write_mesh(path, vertices, faces, normals=np.eye(3))
    assert path.read_text().splitlines() == [
        *("v 0.5 0 0", "v 0 0.5 0", "v 0 0 0.5"),
        *("vn 1 0 0", "vn 0 1 0", "vn 0 0 1"),
        "f 1//1 2//2 3//3",
    ]


HEADER = """ply
format {format} 1.0
comment made by hand
element camera 1
property float view
property list uchar int marks
element vertex 5
property double x
property double y
property float z
property float quality
property {color} red
property {color} green
property {color} blue
element face 2
property uchar flags
property list uchar {index} vertex_index
property list uint float texcoord
element edge 9
property int vertex1
end_header
"""
POINTS = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [2, 2, 2]], np.float32)


def _hand_made_ply(order, polygons, color="uchar", values=(1, 0, 1)):
    """A file with elements and properties that mean nothing to us."""
    number = {"ascii": None, "binary_little_endian": "<", "binary_big_endian": ">"}
    types = {"uchar": "u1", "float": "f4", "int": "i4"}
    byte_order = number[order]
    body = []

    def put(kind, *items):
        if byte_order is None:
            body.append(" ".join(f"{x:g}" for x in items).encode() + b"\n")
        else:
            body.append(np.array(items, byte_order + kind).tobytes())

    put("f4", 1.5)
    put("u1", 2)
    put("i4", 7, 8)
    for point in POINTS:
        put("f8", *point[:2])
        put("f4", point[2], 0.5)
        put(types[color], *values)
    for polygon in polygons:
        put("u1", 9)
        put("u1", len(polygon))
        put("i4", *polygon)
        put("u4", 1)
        put("f4", 0.25)
    header = HEADER.format(format=order, color=color, index="int")
    return header.encode() + b"".join(body) + (b"" if byte_order else b"1 2 3\n")


@pytest.mark.parametrize(
    "order", ["ascii", "binary_little_endian", "binary_big_endian"]
)
@pytest.mark.parametrize("is_mixed", [False, True])
def test_ply_of_other_programs(tmp_path, order, is_mixed):
    path = tmp_path / "a.ply"
    last = [1, 2, 4] if is_mixed else [4, 3, 2, 1]
    path.write_bytes(_hand_made_ply(order, [[0, 1, 2, 3], last]))
    fans = [
        [0, 1, 2],
        [0, 2, 3],
        *([[1, 2, 4]] if is_mixed else [[4, 3, 2], [4, 2, 1]]),
    ]
    # A colour of whole numbers is not a fraction, however dark.
    colors = np.tile(np.uint8([1, 0, 1]), (5, 1))
    _assert_same(read_mesh(path), Mesh(POINTS, np.array(fans, np.int32), None, colors))


@pytest.mark.parametrize("order", ["ascii", "binary_big_endian"])
def test_colors_may_be_fractions(tmp_path, order):
    path = tmp_path / "a.ply"
    path.write_bytes(_hand_made_ply(order, [[0, 1, 2]] * 2, "float", (1, 0.5, 0)))
    np.testing.assert_array_equal(read_mesh(path).colors[3], [255, 128, 0])


def test_ply_without_faces(tmp_path):
    path = tmp_path / "a.ply"
    write_mesh(path, POINTS, np.zeros((0, 3), int))
    assert read_mesh(path).faces.shape == (0, 3)
    lines = ["ply", "format ascii 1.0", "element vertex 2", "property int x"]
    lines += ["property int y", "property int z", "end_header", "1 2 3", "4 5 6", ""]
    path.write_text("\n".join(lines))
    read = read_mesh(path)
    np.testing.assert_array_equal(read.vertices, [[1, 2, 3], [4, 5, 6]])
    assert read.faces.shape == (0, 3)


def test_obj_of_other_programs(tmp_path):
    path = tmp_path / "a.obj"
    lines = [
        b"# exported",
        b"mtllib a.mtl",
        b"v 0 0 0 1 0.5 0",
        b"v 1 0 0 \\",
        b" 0 0 0 # behind a backslash",
        b"vt 0.5 0.5",
        b"v 1 1 0 0 0 0",
        b"v 5 5 5 0 0 0",
        b"vn 0 0 1",
        b"v 0 1 0 1 1 1",
        b"usemtl skin",
        b"s off",
        b"f 1/1/1 2/1 3//1 5",
        b"f -1 -3 -4",
        b"l 1 2",
    ]
    faces = np.array([[0, 1, 2], [0, 2, 4], [4, 2, 1]], np.int32)
    points = [[0, 0, 0], [1, 0, 0], [1, 1, 0], [5, 5, 5], [0, 1, 0]]
    colors = np.uint8([[255, 128, 0], [0] * 3, [0] * 3, [0] * 3, [255] * 3])
    for newline in (b"\n", b"\r\n"):
        path.write_bytes(newline.join(lines) + newline)
        # The vertex that no face uses stays, or the others would be renumbered.
        _assert_same(read_mesh(path), Mesh(np.float32(points), faces, None, colors))


def _ply(body=b"0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n", **changes):
    header = HEADER_LINES | changes
    return "".join(f"{line}\n" for line in header.values()).encode() + body


HEADER_LINES = {
    "magic": "ply",
    "format": "format ascii 1.0",
    "vertex": "element vertex 3",
    "x": "property float x",
    "y": "property float y",
    "z": "property float z",
    "face": "element face 1",
    "list": "property list uchar int vertex_indices",
    "end": "end_header",
}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a .ply"),
        (_ply(magic="plx"), "not a .ply"),
        (_ply(end="end"), "not a .ply"),
        (_ply(format="format ascii 2.0"), "header"),
        (_ply(format="format binary 1.0"), "header"),
        (_ply(format="comment"), "header"),
        (_ply(vertex="element vertex many"), "header"),
        (_ply(vertex="element vertex -3"), "header"),
        (_ply(y="property float x"), "the same twice"),
        (_ply(y="property real y"), "header"),
        (_ply(face="element vertex 1"), "the same twice"),
        (_ply(list="property list float int vertex_indices"), "header"),
        (_ply(list="property int vertex_indices"), "lack the list"),
        (_ply(list="property list uchar int corners"), "lack the list"),
        (_ply(z="property float depth"), "no vertices with x, y and z"),
        (_ply(vertex="element vertex 4"), "list of length|cut short"),
        (_ply(vertex="element vertex 99999999999"), "cut short"),
        (_ply(face="element face 99999999999"), "cut short"),
        (_ply(b"0 0 0 1 0 0 0 1 nan 3 0 1 2"), "1 of 3 vertices .* first is number 2"),
        (_ply(b"0 0 0 1 1e99 0 0 1 0 3 0 1 2"), "not finite; the first is number 1"),
        (_ply(b"0 0 0 1 0 0 0 1 0 3 0 1 3"), "name a vertex that does not exist"),
        (_ply(b"0 0 0 1 0 0 0 1 0 3 0 1 -1"), "name a vertex that does not exist"),
        (_ply(b"0 0 0 1 0 0 0 1 0 3 0 1 1e30"), "names a vertex that cannot exist"),
        (_ply(b"0 0 0 1 0 0 0 1 0 3 0 1 0.5"), "names a vertex that cannot exist"),
        (_ply(b"0 0 0 1 0 0 0 1 0 3 0 1 nan"), "names a vertex that cannot exist"),
        (_ply(b"0 0 0 1 0 0 0 1 0 2 0 1"), "fewer than 3 corners"),
        (_ply(b"0 0 0 1 0 0 0 1 0 nan 0 1"), "list of length nan"),
        (_ply(b"0 0 0 1 0 0 0 1 0 1e9 0 1"), "list of length"),
        (_ply(b"0 0 0 1 0 0 0 1 zero 3 0 1 2"), "number cannot be read"),
        (_ply(b"", vertex="element vertex 0", face="element face 0"), "no vertices"),
    ],
)
def test_bad_ply(tmp_path, data, message):
    path = tmp_path / "bad.ply"
    path.write_bytes(data)
    with pytest.raises(InputError, match=message) as error:
        read_mesh(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "no line 'v x y z'"),
        ((b"solid cube",), "no line 'v x y z'"),
        (("v 0 0 é".encode(),), "a vertex cannot be read"),
        ((b"v 0 0",), "2 numbers each"),
        ((b"v 0 0 0", b"v 0 0 0 0 0 0"), "3, 6 numbers each"),
        ((b"v 0 0 inf",), "not finite"),
        ((b"v 0 0 0", b"f 1 1 2"), "does not exist"),
        ((b"v 0 0 0", b"f 1 1 -2"), "does not exist"),
        ((b"v 0 0 0", b"f 1 1 0"), "line 2 names a vertex that cannot exist"),
        ((b"v 0 0 0", b"f 1 1 99999999999"), "line 2 names a vertex that cannot exist"),
        ((b"v 0 0 0", b"f 1 1"), "line 2 has fewer than 3 corners"),
        ((b"v 0 0 0", b"f a b c"), "line 2 cannot be read"),
    ],
)
def test_bad_obj(tmp_path, lines, message):
    path = tmp_path / "bad.obj"
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(InputError, match=message) as error:
        read_mesh(path)
    assert str(error.value).startswith(f"{path}: ")


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian"])
def test_damaged_ply_is_an_input_error_or_a_mesh(order):
    """Cut at any byte, or with bytes changed: no other exception, no endless work."""
    whole = _hand_made_ply(order, [[0, 1, 2, 3], [1, 2, 4]])
    # Without its last digits the last number of an ascii file is another number.
    needed = whole.rindex(b"1 2 3") - 10 if order == "ascii" else len(whole)
    for length in range(needed):
        with pytest.raises(InputError):
            parse_ply(whole[:length])
    rng = np.random.default_rng(0)
    outcomes = {"mesh": 0, "error": 0}
    characters = b" 0123456789.-en\n" if order == "ascii" else bytes(range(256))
    for _ in range(500):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.choice(list(characters))
        try:
            mesh = parse_ply(bytes(data))
        except InputError:
            outcomes["error"] += 1
        else:
            outcomes["mesh"] += 1
            assert mesh.vertices.shape[1:] == mesh.faces.shape[1:] == (3,)
    assert min(outcomes.values()) > 0, outcomes


def test_what_cannot_be_written(tmp_path):
    mesh = _mesh()
    with pytest.raises(InputError, match=r"does not end in \.ply or \.obj"):
        write_mesh(tmp_path / "a.stl", *mesh)
    with pytest.raises(InputError, match=r"does not end in \.ply or \.obj"):
        read_mesh(tmp_path / "a.stl")
    with pytest.raises(InputError, match="cannot be read"):
        read_mesh(tmp_path / "a.ply")
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_mesh(tmp_path / "file" / "a.ply", *mesh)
    bad = {
        "vertices are": {"vertices": np.zeros((40, 2))},
        "not finite": {"vertices": np.full((40, 3), np.nan)},
        "normals are": {"normals": mesh.normals[1:]},
        "expected uint8": {"colors": mesh.colors / 255},
        "faces are": {"faces": mesh.faces[:, :2]},
        "does not exist": {"faces": mesh.faces + 1},
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=message):
            write_mesh(tmp_path / "a.ply", *mesh._replace(**change))
    assert not (tmp_path / "a.ply").exists()


def test_normals_are_weighted_by_area_and_point_outward():
    # A wedge: at its edge a large face and a small one meet.
    vertices = np.array(
        [[0, 0, 0], [0, 1, 0], [-3, 0, 0], [0, 0, -1], [9, 9, 9]], float
    )
    faces = np.array([[0, 1, 2], [0, 3, 1]])
    normals = vertex_normals(vertices, faces)
    np.testing.assert_allclose(normals[2], [0, 0, 1])
    np.testing.assert_allclose(normals[3], [1, 0, 0])
    np.testing.assert_allclose(normals[0], np.array([1, 0, 3]) / 10**0.5, rtol=1e-6)
    np.testing.assert_array_equal(normals[4], [0, 0, 0])


def test_keep_largest():
    mesh = _mesh(num_vertices=12)._replace(
        # Components of 2, 3 and 1 faces; vertex 11 belongs to none.
        faces=np.int32(
            [[0, 1, 2], [2, 1, 3], [4, 5, 6], [6, 7, 4], [7, 8, 4], [9, 10, 9]]
        )
    )
    kept, dropped = keep_largest(mesh)
    assert dropped == (2, 3)
    np.testing.assert_array_equal(kept.faces, [[0, 1, 2], [2, 3, 0], [3, 4, 0]])
    for name in ("vertices", "normals", "colors"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(mesh, name)[4:9])
    kept, dropped = keep_largest(mesh, 2)
    assert dropped == (1, 1)
    np.testing.assert_array_equal(kept.vertices, mesh.vertices[:9])
    kept, dropped = keep_largest(mesh, 9)
    assert dropped == (0, 0)
    assert len(kept.faces) == 6
