"""Reads and writes point clouds in PCL's .pcd format; ascii and packed are read."""

import struct
from pathlib import Path

import numpy as np

from npga_jax.core import InputError, atomic_write
from npga_jax.data.capture import PointCloud

_PACKED = ("rgb", "rgba")
_SPLIT = (("r", "g", "b"), ("red", "green", "blue"))
_MAX_HEADER = 1 << 16
_NO_COLOR = 0.5


def read_pcd(path: Path) -> PointCloud:
    """Reads a point cloud; coordinates are taken as metres in the world frame.

    Points that are not finite are dropped. Colours that the file does not have are
    grey; normals that it does not have are None.

    Args:
      path: A .pcd file with the fields x y z, and perhaps normal_x normal_y normal_z
        and colours: rgb or rgba (packed as 0xAARRGGBB), or r g b on their own, whose
        largest value is 1, 255 or that of their type.

    Raises:
      InputError: if the file cannot be read, is not a point cloud, is cut short, is
        empty, or has colours of a type that is not known.
    """
    try:
        header, body = _split_header(path.read_bytes())
        columns = _read_columns(header, body)
        xyz = np.stack([columns[c] for c in "xyz"], axis=-1).astype(np.float32)
        rgb = _read_colors(columns, len(xyz))
    except (
        OSError,
        KeyError,
        ValueError,
        IndexError,
        struct.error,
        TypeError,
    ) as error:
        raise _unreadable(path, error) from error
    finite = np.isfinite(xyz).all(axis=-1)
    if not finite.any():
        raise InputError(
            f"{path} holds no usable point (of {len(xyz)}). Make the point cloud "
            "again or delete the file: a frame may have none."
        )
    normals = None
    if all(f"normal_{c}" in columns for c in "xyz"):
        normals = np.stack([columns[f"normal_{c}"] for c in "xyz"], axis=-1)
        normals = np.nan_to_num(normals[finite].astype(np.float32), posinf=0, neginf=0)
    return PointCloud(xyz[finite], rgb[finite], normals)


def write_pcd(
    path: Path, xyz: np.ndarray, rgb: np.ndarray, normals: np.ndarray
) -> None:
    """Writes a binary .pcd with colours and normals, whole or not at all.

    Args:
      path: where to; folders are made.
      xyz: [P, 3] world, metres.
      rgb: [P, 3] in [0, 1].
      normals: [P, 3] world.

    Raises:
      InputError: the file cannot be written.
    """
    r, g, b = np.round(np.clip(rgb, 0, 1) * 255).astype("<u4").T
    packed = ((r << 16) | (g << 8) | b).view("<f4")
    table = np.column_stack([xyz, packed, normals]).astype("<f4")
    # The cast above would lose bits of packed colours that are not a number.
    table[:, 3] = packed
    header = (
        "VERSION 0.7\nFIELDS x y z rgb normal_x normal_y normal_z\n"
        f"SIZE{' 4' * 7}\nTYPE{' F' * 7}\nCOUNT{' 1' * 7}\nWIDTH {len(xyz)}\n"
        f"HEIGHT 1\nVIEWPOINT 0 0 0 1 0 0 0\nPOINTS {len(xyz)}\nDATA binary\n"
    )
    with atomic_write(path) as file:
        file.write(header.encode() + table.tobytes())


def unused_fields(path: Path) -> tuple[str, ...]:
    """Names the fields of a file that `read_pcd` takes nothing from.

    Raises:
      InputError: if the file has no header of a point cloud.
    """
    try:
        with path.open("rb") as file:
            names = _split_header(file.read(_MAX_HEADER))[0]["FIELDS"]
    except (KeyError, ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    used = {*"xyz_", *(f"normal_{c}" for c in "xyz")}
    packed = next((n for n in _PACKED if n in names), None)
    split = next((s for s in _SPLIT if set(s) <= set(names)), ())
    used |= {packed} if packed else set(split)
    return tuple(n for n in names if n not in used)


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
    return InputError(
        f"{path} is not a readable .pcd point cloud: {reason}. Expected the fields "
        "x y z (rgb, normals) as ascii, binary or binary_compressed; make or "
        "copy the file again."
    )


def _split_header(data: bytes) -> tuple[dict[str, list[str]], bytes]:
    """Splits a file into its header, by keyword, and the bytes after it."""
    header: dict[str, list[str]] = {}
    offset = 0
    while "DATA" not in header:
        end = data.find(b"\n", offset)
        if end < 0:
            raise ValueError("its header is cut short")
        words = data[offset:end].decode("ascii", "replace").split()
        offset = end + 1
        if words and not words[0].startswith("#"):
            header[words[0].upper()] = words[1:]
    return header, data[offset:]


def _read_columns(header: dict[str, list[str]], body: bytes) -> dict[str, np.ndarray]:
    """Reads every field into an array [P] (or [P, count])."""
    names = header["FIELDS"]
    counts = [int(c) for c in header.get("COUNT", ["1"] * len(names))]
    types = zip(header["TYPE"], header["SIZE"], strict=True)
    formats = [f"<{letter.lower()}{size}" for letter, size in types]
    if "POINTS" in header:
        num_points = int(header["POINTS"][0])
    else:
        num_points = int(header["WIDTH"][0]) * int(header["HEIGHT"][0])
    if num_points < 0:
        raise ValueError(f"it declares {num_points} points")
    # Padding fields share the name "_"; numpy wants names to differ.
    unique = [n if n != "_" else f"_{i}" for i, n in enumerate(names)]
    fields = zip(unique, formats, counts, strict=True)
    point = np.dtype([(n, f, (c,) if c > 1 else ()) for n, f, c in fields])
    kind = header["DATA"][0].lower()
    if kind == "ascii":
        return _read_ascii(body, point, num_points)
    if kind == "binary_compressed":
        packed, size = struct.unpack_from("<II", body)
        if len(body) < 8 + packed:
            raise ValueError(f"it is cut short ({len(body) - 8} of {packed} bytes)")
        body = decompress_lzf(body[8 : 8 + packed], size)
    elif kind != "binary":
        raise ValueError(f"its encoding '{kind}' is not known")
    if len(body) < num_points * point.itemsize:
        whole = len(body) // point.itemsize
        raise ValueError(f"it is cut short ({whole} of {num_points} points)")
    if kind == "binary":
        points = np.frombuffer(body, point, num_points)
        return {name: points[name] for name in unique}
    columns, offset = {}, 0
    for name in unique:  # Compressed files store one field after the other.
        base, shape = point[name].base, point[name].shape
        length = num_points * int(np.prod(shape, dtype=int))
        flat = np.frombuffer(body, base, length, offset)
        columns[name] = flat.reshape(num_points, *shape)
        offset += length * base.itemsize
    return columns


def _read_ascii(body: bytes, point: np.dtype, num_points: int) -> dict[str, np.ndarray]:
    names = point.names or ()
    widths = [int(np.prod(point[n].shape, dtype=int)) for n in names]
    values = np.array(body.split(), dtype=np.float64)
    wanted = num_points * sum(widths)
    if len(values) < wanted:
        whole = len(values) // max(sum(widths), 1)
        raise ValueError(f"it is cut short ({whole} of {num_points} points)")
    table = values[:wanted].reshape(num_points, sum(widths))
    columns, start = {}, 0
    for name, width in zip(names, widths, strict=True):
        base = point[name].base
        if name in _PACKED and base.itemsize == 4:  # All its bits count.
            base = np.dtype("f8" if base.kind == "f" else "i8")
        column = table[:, start : start + width].astype(base)
        columns[name] = column.reshape(num_points, *point[name].shape)
        start += width
    return columns


def _read_colors(columns: dict[str, np.ndarray], num_points: int) -> np.ndarray:
    """Colours [P, 3] in [0, 1], whatever fields they are in; grey if in none."""
    packed = next((columns[n] for n in _PACKED if n in columns), None)
    if packed is not None:
        if packed.ndim == 2 and packed.shape[1] >= 3:  # COUNT 3: not packed after all.
            return _scale_channels(packed[:, :3])
        if packed.ndim != 1 or packed.dtype.itemsize < 4:
            raise ValueError(f"its field rgb of type {packed.dtype} is not known")
        return _unpack_colors(packed)
    for names in _SPLIT:
        if all(n in columns for n in names):
            return _scale_channels(np.stack([columns[n] for n in names], axis=-1))
    return np.full((num_points, 3), _NO_COLOR, np.float32)


def _unpack_colors(packed: np.ndarray) -> np.ndarray:
    """Takes colours out of 0xAARRGGBB.

    A float of 4 bytes has these bits. One of 8, which any text becomes, may also be the
    integer: PCL writes that as text, whatever TYPE says, because the floats of many
    colours are not a number; the others are far below 1 (or, opaque, hugely negative).
    """
    unknown = np.zeros(len(packed), bool)
    if packed.dtype.kind != "f":
        words = packed.astype(np.int64)
    else:
        words = packed.astype("<f4").view("<u4").astype(np.int64)
        if packed.dtype.itemsize == 8:
            unknown = np.isnan(packed)
            is_integer = (packed >= 1) & (packed < 2.0**32)
            words[is_integer] = packed[is_integer].astype(np.int64)
    channels = (words[:, None] >> np.array([16, 8, 0])) & 0xFF
    return np.where(unknown[:, None], _NO_COLOR, channels / 255).astype(np.float32)


def _scale_channels(values: np.ndarray) -> np.ndarray:
    """Brings channels [P, 3] of any type to [0, 1]."""
    if values.dtype.itemsize == 1:
        return values.view(np.uint8).astype(np.float32) / 255
    largest = float(np.nanmax(values, initial=0.0, where=np.isfinite(values)))
    if values.dtype.kind == "f" and largest <= 1:
        scale = 1.0
    elif largest <= 255:
        scale = 255.0
    elif values.dtype.kind != "f":
        scale = float(np.iinfo(values.dtype).max)
    else:
        raise ValueError(f"its colours reach {largest:g}; expected 1 or 255")
    colors = np.where(np.isfinite(values), values / scale, _NO_COLOR)
    return np.clip(colors, 0, 1).astype(np.float32)


def decompress_lzf(data: bytes, size: int) -> bytes:
    """Undoes LZF compression.

    Args:
      data: Tokens: a literal run (first byte < 32), or a copy of earlier output.
      size: Bytes that must come out.

    Raises:
      ValueError: if the data does not decompress to `size` bytes.
    """
    out = bytearray()
    i = 0
    while i < len(data):
        control = data[i]
        i += 1
        if control < 32:
            out += data[i : i + control + 1]
            i += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += data[i]
            i += 1
        start = len(out) - (((control & 31) << 8) | data[i]) - 1
        i += 1
        if start < 0:
            raise ValueError("its compressed data is damaged")
        length += 2
        # A copy may reach into what it is writing: then the tail repeats.
        chunk = out[start : start + length]
        out += (chunk * (length // len(chunk) + 1))[:length]
    if len(out) != size:
        raise ValueError(f"its data decompresses to {len(out)} of {size} bytes")
    return bytes(out)
