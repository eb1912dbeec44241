"""The .ply format of triangle meshes: bytes to arrays and back.

Reads ascii and both binary orders, with any further elements and properties.
"""

from typing import NamedTuple

import numpy as np

from npga_jax.core import InputError, Mesh

_TYPES = {
    "char": "i1",
    "int8": "i1",
    "uchar": "u1",
    "uint8": "u1",
    "short": "i2",
    "int16": "i2",
    "ushort": "u2",
    "uint16": "u2",
    "int": "i4",
    "int32": "i4",
    "uint": "u4",
    "uint32": "u4",
    "float": "f4",
    "float32": "f4",
    "double": "f8",
    "float64": "f8",
}
_ORDERS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_MAX_HEADER = 1 << 16
_MAX_POLYGON = 1 << 12


class _Property(NamedTuple):
    name: str
    dtype: str  # Of the value, or of the items of a list.
    count_dtype: str  # Empty for what is not a list.
    is_float: bool  # As announced; numbers of an ascii file are doubles to us.


class _Element(NamedTuple):
    name: str
    num_rows: int
    properties: list[_Property]

    @property
    def has_lists(self) -> bool:
        return any(prop.count_dtype for prop in self.properties)


class _Lists(NamedTuple):
    """Lists of any lengths, one per row."""

    counts: np.ndarray  # [rows] int64
    items: np.ndarray  # [sum of counts]


_Columns = dict[str, np.ndarray | _Lists]


def ply_bytes(mesh: Mesh) -> bytes:
    """A whole file: binary, little endian."""
    fields = [("vertices", "float", "x y z", "<f4")]
    if mesh.normals is not None:
        fields.append(("normals", "float", "nx ny nz", "<f4"))
    if mesh.colors is not None:
        fields.append(("colors", "uchar", "red green blue", "u1"))
    table = np.empty(
        len(mesh.vertices), [(attribute, dtype, 3) for attribute, _, _, dtype in fields]
    )
    header = ["ply", "format binary_little_endian 1.0"]
    header.append(f"element vertex {len(mesh.vertices)}")
    for attribute, kind, names, _ in fields:
        table[attribute] = getattr(mesh, attribute)
        header += [f"property {kind} {name}" for name in names.split()]
    faces = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
    faces["count"], faces["corners"] = 3, mesh.faces
    header.append(f"element face {len(mesh.faces)}")
    header.append("property list uchar int vertex_indices")
    header.append("end_header\n")
    return "\n".join(header).encode("ascii") + table.tobytes() + faces.tobytes()


def parse_ply(data: bytes) -> Mesh:
    """Takes a file's bytes apart.

    Raises:
      InputError: not the .ply of a mesh, or cut short. The message names no file.
    """
    elements, body = _parse_header(data)
    columns: dict[str, _Columns] = {}
    position = 0
    wanted = {"vertex", "face"} & {element.name for element in elements}
    for element in elements:
        columns[element.name], position = _read_element(element, body, position)
        if wanted <= columns.keys():
            break
    vertex = columns.get("vertex", {})
    vertices = _triple(vertex, ("x", "y", "z"))
    if vertices is None:
        raise InputError("it has no vertices with x, y and z.")
    with np.errstate(over="ignore"):  # What overflows is found to be infinite.
        vertices = vertices.astype(np.float32)
        normals = _triple(vertex, ("nx", "ny", "nz"))
        normals = None if normals is None else normals.astype(np.float32)
    colors = _triple(vertex, ("red", "green", "blue"))
    if colors is not None:
        floats = {p.name for e in elements for p in e.properties if p.is_float}
        colors = color_bytes(colors, may_be_fractions="red" in floats)
    faces = _triangles(columns["face"]) if "face" in columns else []
    return Mesh(
        vertices=vertices,
        faces=np.asarray(faces, np.int32).reshape(-1, 3),
        normals=normals,
        colors=colors,
    )


def _parse_header(data: bytes) -> tuple[list[_Element], bytes]:
    """The elements with their types, byte order included, and what follows."""
    end = data[:_MAX_HEADER].find(b"end_header")
    if not data.startswith(b"ply") or end < 0:
        raise InputError("it is not a .ply file: it has no such header.")
    newline = data.find(b"\n", end)
    body = data[newline + 1 :] if newline >= 0 else b""
    order, elements = "?", []

    def add_property(name: str, kind: str, count_dtype: str) -> None:
        prop = _Property(name, order + kind, count_dtype, "f" in kind)
        elements[-1].properties.append(prop)

    try:
        for line in data[:end].decode("ascii", "replace").splitlines()[1:]:
            match line.split():
                case [] | ["comment" | "obj_info", *_]:
                    pass
                case ["format", name, "1.0"]:
                    order = _ORDERS[name]
                case ["element", name, count] if int(count) >= 0:
                    elements.append(_Element(name, int(count), []))
                case ["property", "list", count, item, name]:
                    if "f" in _TYPES[count]:
                        raise ValueError(line)
                    add_property(name, _TYPES[item], order + _TYPES[count])
                case ["property", kind, name]:
                    add_property(name, _TYPES[kind], "")
                case _:
                    raise ValueError(line)
        _check_names("elements", [element.name for element in elements])
        for element in elements:
            _check_names(element.name, [prop.name for prop in element.properties])
        if order == "?":
            raise ValueError("no line 'format' comes first")
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"its header cannot be read ({error}).") from None
    return (elements, body) if order else _from_ascii(elements, body)


def _check_names(of: str, names: list[str]) -> None:
    if not names or len(set(names)) < len(names):
        raise ValueError(f"{of}: no names, or the same twice")


def _from_ascii(elements: list[_Element], body: bytes) -> tuple[list[_Element], bytes]:
    """The same file as a binary one that has doubles only."""
    try:
        numbers = np.fromiter(map(float, body.split()), "<f8")
    except ValueError as error:
        raise InputError(f"a number cannot be read ({error}).") from None
    doubles = [
        element._replace(
            properties=[
                prop._replace(
                    dtype="<f8", count_dtype="<f8" if prop.count_dtype else ""
                )
                for prop in element.properties
            ]
        )
        for element in elements
    ]
    return doubles, numbers.tobytes()


def _read_element(
    element: _Element, body: bytes, position: int
) -> tuple[_Columns, int]:
    """The rows of an element, and the position behind them.

    Lists mostly are as long in every row as in the first, as triangles are. Then all
    rows have one layout and are read at once, else one by one.
    """
    if element.num_rows == 0:
        nothing = np.zeros(0)
        empty = _Lists(np.zeros(0, np.int64), nothing)
        return {
            p.name: empty if p.count_dtype else nothing for p in element.properties
        }, position
    lengths = _row_lengths(element, body, position)
    layout = _row_dtype(element, lengths)
    end = position + element.num_rows * layout.itemsize
    if not element.has_lists or end <= len(body):
        table = _read_rows(element, body, position, layout, element.num_rows)
        is_uniform = all(
            (table[_count_name(prop)] == length).all()
            for prop, length in zip(element.properties, lengths, strict=True)
            if prop.count_dtype
        )
        if is_uniform:
            return _columns(element, [table]), end
    rows = []
    for _ in range(element.num_rows):
        layout = _row_dtype(element, _row_lengths(element, body, position))
        rows.append(_read_rows(element, body, position, layout, 1))
        position += layout.itemsize
    return _columns(element, rows), position


def _row_lengths(element: _Element, body: bytes, position: int) -> list[int]:
    """How many values each property has in the row at a position."""
    lengths = []
    for prop in element.properties:
        length = 1
        if prop.count_dtype:
            dtype = np.dtype([("count", prop.count_dtype)])
            row = _read_rows(element, body, position, dtype, 1)
            count = float(row["count"][0])
            if not 0 <= count <= _MAX_POLYGON or count != int(count):
                raise InputError(
                    f"element {element.name} has a list of length {count:g}; expected "
                    f"0 to {_MAX_POLYGON}."
                )
            length = int(count)
            position += dtype.itemsize
        position += length * np.dtype(prop.dtype).itemsize
        lengths.append(length)
    return lengths


def _row_dtype(element: _Element, lengths: list[int]) -> np.dtype:
    fields = []
    for prop, length in zip(element.properties, lengths, strict=True):
        if prop.count_dtype:
            fields.append((_count_name(prop), prop.count_dtype))
            fields.append((prop.name, prop.dtype, (length,)))
        else:
            fields.append((prop.name, prop.dtype))
    return np.dtype(fields)


def _count_name(prop: _Property) -> str:
    """Names in a header have no spaces, so this one is free."""
    return f"count of {prop.name}"


def _read_rows(
    element: _Element, body: bytes, position: int, layout: np.dtype, count: int
) -> np.ndarray:
    if position + count * layout.itemsize > len(body):
        raise InputError(
            f"it is cut short: it announces {element.num_rows} of {element.name}."
        )
    return np.frombuffer(body, layout, count=count, offset=position)


def _columns(element: _Element, tables: list[np.ndarray]) -> _Columns:
    """The values of each property over all rows."""
    columns: _Columns = {}
    for prop in element.properties:
        values = np.concatenate([table[prop.name].ravel() for table in tables])
        columns[prop.name] = values
        if prop.count_dtype:
            counts = np.concatenate([table[_count_name(prop)] for table in tables])
            columns[prop.name] = _Lists(counts.astype(np.int64), values)
    return columns


def _triple(columns: _Columns, names: tuple[str, str, str]) -> np.ndarray | None:
    """Three scalar columns side by side, [rows, 3]; None if one is missing."""
    named = [columns.get(name) for name in names]
    found = [column for column in named if isinstance(column, np.ndarray)]
    if len(found) < 3:
        return None
    return np.stack(found, axis=1)


def color_bytes(values: np.ndarray, may_be_fractions: bool = True) -> np.ndarray:
    """Colours as uint8; fractions, if none is greater than 1, lie in [0, 1]."""
    values = np.nan_to_num(values)
    is_fraction = may_be_fractions and values.max(initial=0) <= 1
    scale = 255.0 if is_fraction else 1.0
    return np.clip(np.round(values * scale), 0, 255).astype(np.uint8)


def _triangles(face: _Columns) -> np.ndarray:
    """The faces of the file as triangles [F, 3]."""
    polygons = face.get("vertex_indices", face.get("vertex_index"))
    if not isinstance(polygons, _Lists):
        raise InputError("its faces lack the list vertex_indices.")
    counts, items = polygons
    if (counts < 3).any():
        raise InputError(
            f"face {(counts < 3).argmax()} has fewer than 3 corners; only polygons are "
            "read."
        )
    is_index = (np.abs(items) < 2**31) & (items == np.floor(items))
    if not is_index.all():
        raise InputError("a face names a vertex that cannot exist.")
    return triangle_fans(counts, items.astype(np.int64))


def triangle_fans(counts: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Polygons as triangles [F, 3] around the first corner of each, in their order.

    Args:
      counts: [polygons] corners of each, 3 or more.
      items: [sum of counts] the corners.
    """
    start = np.cumsum(counts) - counts
    polygon = np.repeat(np.arange(len(counts)), counts - 2)
    step = np.arange(len(polygon)) - (np.cumsum(counts - 2) - (counts - 2))[polygon]
    first = start[polygon]
    return np.stack(
        [items[first], items[first + step + 1], items[first + step + 2]], axis=1
    )
