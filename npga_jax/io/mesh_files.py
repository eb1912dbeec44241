"""Reads and writes triangle meshes as .ply and .obj.

Vertices keep the order that they have in the file: in registered scans vertex i is the
same point of the head in every file.
"""

import re
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np

from npga_jax.core import InputError, Mesh, atomic_write
from npga_jax.io.mesh_ply import color_bytes, parse_ply, ply_bytes, triangle_fans

_MAX_VERTICES = 1 << 30


def write_mesh(
    path: Path,
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None = None,
    colors: np.ndarray | None = None,
) -> None:
    """Writes a mesh; the file appears under its name only when it is complete.

    Args:
      path: ends in .ply (binary, little endian) or .obj; folders are made.
      vertices: [V, 3].
      faces: [F, 3] indices.
      normals: [V, 3] unit.
      colors: [V, 3] uint8; in an .obj as numbers in [0, 1] behind the position.

    Raises:
      InputError: the ending is another, or the file cannot be written.
      ValueError: the arrays are not those of a mesh.
    """
    check_mesh_path(path)
    mesh = _check_arrays(vertices, faces, normals, colors)
    data = ply_bytes(mesh) if path.suffix.lower() == ".ply" else _obj_bytes(mesh)
    with atomic_write(path) as file:
        file.write(data)


def read_mesh(path: Path) -> Mesh:
    """Reads a mesh.

    Args:
      path: .ply (of any format) or .obj.

    Returns:
      Mesh; vertices in the file's order, none merged and none left out. Polygons become
      fans of triangles. Normals only of a .ply, whose vertices have one each. A file
      without faces gives none: [0, 3].

    Raises:
      InputError: the file is missing, cut short or malformed, a number is not finite,
        or a face names a vertex that does not exist.
    """
    check_mesh_path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    parse: Callable[[bytes], Mesh] = (
        parse_ply if path.suffix.lower() == ".ply" else _parse_obj
    )
    try:
        mesh = parse(data)
        _check_content(mesh)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return mesh


def check_mesh_path(path: Path) -> None:
    """Raises an InputError unless a path ends like a mesh file."""
    if path.suffix.lower() not in (".ply", ".obj"):
        raise InputError(f"{path} does not end in .ply or .obj, the known meshes.")


def _check_arrays(
    vertices: np.ndarray,
    faces: np.ndarray,
    normals: np.ndarray | None,
    colors: np.ndarray | None,
) -> Mesh:
    mesh = Mesh(
        np.asarray(vertices, np.float32),
        np.asarray(faces, np.int32),
        None if normals is None else np.asarray(normals, np.float32),
        None if colors is None else np.asarray(colors),
    )
    expected = (len(mesh.vertices), 3)
    for name in ("vertices", "normals", "colors"):
        array = getattr(mesh, name)
        if array is not None and array.shape != expected:
            raise ValueError(f"{name} are {array.shape}; expected {expected}.")
    if mesh.colors is not None and mesh.colors.dtype != np.uint8:
        raise ValueError(f"colors are {mesh.colors.dtype}; expected uint8.")
    if mesh.faces.ndim != 2 or mesh.faces.shape[1] != 3:
        raise ValueError(f"faces are {mesh.faces.shape}; expected [F, 3].")
    try:
        _check_content(mesh)
    except InputError as error:
        raise ValueError(str(error)) from None
    return mesh


def _check_content(mesh: Mesh) -> None:
    count = len(mesh.vertices)
    if count == 0:
        raise InputError("it has no vertices.")
    for what, array in (("position", mesh.vertices), ("normal", mesh.normals)):
        if array is None:
            continue
        is_bad = ~np.isfinite(array).all(1)
        if is_bad.any():
            raise InputError(
                f"{is_bad.sum()} of {count} vertices have a {what} that is not finite; "
                f"the first is number {is_bad.argmax()}, counted from 0."
            )
    is_bad = ((mesh.faces < 0) | (mesh.faces >= count)).any(1)
    if is_bad.any():
        raise InputError(
            f"{is_bad.sum()} of {len(mesh.faces)} triangles name a vertex that does "
            f"not exist (there are {count}); the first is number {is_bad.argmax()}."
        )


def _obj_bytes(mesh: Mesh) -> bytes:
    # Nine digits are enough to read back the same float32.
    rows = mesh.vertices.astype(np.float64)
    pattern = "v %.9g %.9g %.9g\n"
    if mesh.colors is not None:
        rows = np.concatenate([rows, mesh.colors / 255.0], axis=1)
        pattern = "v %.9g %.9g %.9g %.5f %.5f %.5f\n"
    parts = [_format(pattern, rows)]
    numbers = mesh.faces + 1
    if mesh.normals is None:
        parts.append(_format("f %d %d %d\n", numbers))
    else:
        parts.append(_format("vn %.6g %.6g %.6g\n", mesh.normals.astype(np.float64)))
        parts.append(_format("f %d//%d %d//%d %d//%d\n", np.repeat(numbers, 2, axis=1)))
    return "".join(parts).encode("ascii")


def _format(pattern: str, rows: np.ndarray) -> str:
    return (pattern * len(rows)) % tuple(rows.ravel().tolist())


def _parse_obj(data: bytes) -> Mesh:
    """Positions, colours behind them, and faces; all other lines are left out."""
    text = re.sub(rb"\\\r?\n", b" ", data)  # A backslash continues the line.
    vertices: list[bytes] = []
    polygons: list[tuple[int, int, bytes]] = []
    for number, line in enumerate(re.sub(rb"#.*", b"", text).splitlines(), start=1):
        match line.split(None, 1):
            case [b"v", rest]:
                vertices.append(rest)
            case [b"f", rest]:
                polygons.append((number, len(vertices), rest))
    if not vertices:
        raise InputError("it has no line 'v x y z': not an .obj file, or empty.")
    widths = {len(rest.split()) for rest in vertices}
    # A fourth number is a weight that only curves use.
    if not widths <= {3, 4, 6} or len(widths) > 1:
        raise InputError(
            f"its vertices have {', '.join(map(str, sorted(widths)))} numbers each; "
            "expected 3 (x y z), 4 (x y z w) or 6 (x y z r g b), the same for all."
        )
    try:
        numbers = np.fromiter(map(float, b" ".join(vertices).split()), np.float64)
    except ValueError as error:
        raise InputError(f"a vertex cannot be read ({error}).") from None
    table = numbers.reshape(len(vertices), -1)
    with np.errstate(over="ignore"):  # What overflows is found to be infinite.
        positions = table[:, :3].astype(np.float32)
    return Mesh(
        vertices=positions,
        faces=_obj_triangles(polygons),
        colors=color_bytes(table[:, 3:]) if table.shape[1] == 6 else None,
    )


def _obj_triangles(polygons: list[tuple[int, int, bytes]]) -> np.ndarray:
    """Fans [F, 3] of polygons: line number, vertices so far, corners as text.

    A corner is 7, 7/1, 7//3 or, counted back from the last vertex so far, -1.
    """
    corners = [re.sub(rb"/\S*", b"", rest).split() for _, _, rest in polygons]
    counts = np.fromiter(map(len, corners), np.int64)
    _refuse(polygons, counts < 3, "has fewer than 3 corners")
    try:
        index = np.fromiter(map(int, chain.from_iterable(corners)), np.int64)
    except (ValueError, OverflowError):
        is_bad = np.array([not all(map(_is_index, words)) for words in corners])
        _refuse(polygons, is_bad, "cannot be read")
        raise
    polygon = np.repeat(np.arange(len(polygons)), counts)
    seen = np.fromiter((seen for _, seen, _ in polygons), np.int64)
    is_bad = np.zeros(len(polygons), bool)
    is_bad[polygon[(index == 0) | (np.abs(index) > _MAX_VERTICES)]] = True
    _refuse(polygons, is_bad, "names a vertex that cannot exist")
    index = np.where(index > 0, index - 1, index + seen[polygon])
    return triangle_fans(counts, index).astype(np.int32)


def _is_index(word: bytes) -> bool:
    return re.fullmatch(rb"[+-]?\d{1,18}", word) is not None


def _refuse(
    polygons: list[tuple[int, int, bytes]], is_bad: np.ndarray, why: str
) -> None:
    if is_bad.any():
        line = polygons[int(is_bad.argmax())][0]
        raise InputError(f"the face in line {line} {why}.")
