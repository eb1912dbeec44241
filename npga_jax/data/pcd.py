"""Reads point clouds in PCL's .pcd format: ascii, binary and binary_compressed."""

import struct
from pathlib import Path

import numpy as np

from npga_jax.core import InputError
from npga_jax.data.capture import PointCloud


def read_pcd(path: Path) -> PointCloud:
    """Reads a point cloud; coordinates are taken as metres in the world frame.

    Points that are not finite are dropped. Colours that the file does not have are
    grey; normals that it does not have are None.

    Args:
      path: A .pcd file with the fields x y z, and perhaps rgb or rgba (packed into
        four bytes) and normal_x normal_y normal_z.

    Raises:
      InputError: if the file is not a point cloud, is cut short, or is empty.
    """
    data = path.read_bytes()
    try:
        header, body = _split_header(data)
        columns = _read_columns(header, body)
        xyz = np.stack([columns[c] for c in "xyz"], axis=-1).astype(np.float32)
    except (KeyError, ValueError, IndexError, struct.error, TypeError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise InputError(
            f"{path} is not a readable .pcd point cloud: {reason}. Expected the fields "
            "x y z (rgb, normals) as ascii, binary or binary_compressed; make or "
            "copy the file again."
        ) from error
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
    return PointCloud(xyz[finite], _unpack_rgb(columns, len(xyz))[finite], normals)


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
    widths = [int(np.prod(point[n].shape, dtype=int)) for n in point.names]
    values = np.array(body.split(), dtype=np.float64)
    wanted = num_points * sum(widths)
    if len(values) < wanted:
        whole = len(values) // max(sum(widths), 1)
        raise ValueError(f"it is cut short ({whole} of {num_points} points)")
    table = values[:wanted].reshape(num_points, sum(widths))
    columns, start = {}, 0
    for name, width in zip(point.names, widths, strict=True):
        column = table[:, start : start + width].astype(point[name].base)
        columns[name] = column.reshape(num_points, *point[name].shape)
        start += width
    return columns


def _unpack_rgb(columns: dict[str, np.ndarray], num_points: int) -> np.ndarray:
    """Takes colours out of the four bytes 0xAARRGGBB, whatever their type is."""
    packed = columns.get("rgb", columns.get("rgba"))
    if packed is None or packed.dtype.itemsize != 4:
        return np.full((num_points, 3), 0.5, np.float32)
    words = np.ascontiguousarray(packed).view("<u4")
    channels = (words[:, None] >> np.array([16, 8, 0], np.uint32)) & 0xFF
    return channels.astype(np.float32) / 255


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
