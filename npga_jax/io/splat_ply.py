"""Reads and writes Gaussians as the .ply files that 3D Gaussian splatting viewers take.

The files hold raw values: logit opacities, log scales, spherical harmonics. `Splats`
holds activated ones; the conversion is done here, and only here.
"""

from pathlib import Path

import numpy as np

from npga_jax.core import InputError, Splats, atomic_write

_MIN_OPACITY = 1e-6
_MIN_SCALE = 1e-12
_BASES = (1, 4, 9, 16)
_PLY_TYPES = {
    "float": "<f4",
    "float32": "<f4",
    "double": "<f8",
    "float64": "<f8",
    "uchar": "u1",
    "uint8": "u1",
    "char": "i1",
    "int8": "i1",
    "short": "<i2",
    "int16": "<i2",
    "ushort": "<u2",
    "uint16": "<u2",
    "int": "<i4",
    "int32": "<i4",
    "uint": "<u4",
    "uint32": "<u4",
}
_MAX_HEADER = 1 << 16


def write_ply(path: Path, splats: Splats) -> int:
    """Writes a binary .ply in the layout of 3D Gaussian splatting.

    Positions and scales keep the frame and unit of `splats`. Slots of zero opacity
    are left out; opacities are kept within [1e-6, 1 - 1e-6], so that their logits are
    finite. Quaternions are written with unit length, wxyz, normals as zeros. The file
    appears under its name only when it is complete.

    Args:
        path: Where to; folders are made.
        splats: Arrays of any kind that numpy takes; colors [N, K, 3] of spherical
            harmonics with K = 1, 4, 9 or 16.

    Returns:
        The number of Gaussians written.

    Raises:
        InputError: a visible Gaussian is not finite, none is visible, or the file
            cannot be written.
        ValueError: the shapes are not those of `Splats`.
    """
    splats = _check_shapes(splats)
    is_bad = ~np.isfinite(splats.opacities)
    visible = splats.opacities > 0
    for array in (splats.means, splats.quats, splats.scales, splats.colors):
        is_bad |= visible & ~np.isfinite(array.reshape(len(array), -1)).all(1)
    if is_bad.any():
        raise InputError(
            f"{path}: {is_bad.sum()} of {len(is_bad)} Gaussians are not finite, the "
            f"first is number {is_bad.argmax()}: the checkpoint is damaged or its "
            "training diverged."
        )
    if not visible.any():
        raise InputError(f"{path}: no Gaussian has an opacity above 0.")
    table = _to_table(Splats(*(array[visible] for array in splats)))
    with atomic_write(path) as file:
        file.write(_header(table))
        file.write(table.tobytes())
    return len(table)


def read_ply(path: Path) -> Splats:
    """Reads what `write_ply` and other tools of 3D Gaussian splatting write.

    Returns:
        Splats of float32 numpy arrays: colors [N, K, 3], K from the number of
        f_rest properties.

    Raises:
        InputError: the file is missing, damaged, or not a binary .ply of Gaussians.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    table = _parse(path, data)
    names = table.dtype.names or ()
    num_rest = sum(name.startswith("f_rest_") for name in names)
    num_bases = 1 + num_rest // 3
    wanted = _property_names(num_bases if num_bases in _BASES else 1)
    missing = [n for n in wanted if n not in names and n not in ("nx", "ny", "nz")]
    if missing or num_rest != 3 * (num_bases - 1) or num_bases not in _BASES:
        raise InputError(
            f"{path}: not a .ply of Gaussians: it lacks {', '.join(missing) or '-'} "
            f"and has {num_rest} f_rest properties (expected 0, 9, 24 or 45)."
        )

    def columns(*picked: str) -> np.ndarray:
        return np.stack([table[name] for name in picked], axis=1).astype(np.float32)

    base = columns("f_dc_0", "f_dc_1", "f_dc_2")[:, None]  # [N, 1, 3]
    colors = base
    if num_rest:
        rest = columns(*(f"f_rest_{i}" for i in range(num_rest)))
        rest = rest.reshape(-1, 3, num_bases - 1).transpose(0, 2, 1)
        colors = np.concatenate([base, rest], axis=1)
    logits = columns("opacity")[:, 0].astype(np.float64)
    # Past 80 the sigmoid is 0 or 1 in any case, and its exponential would overflow.
    opacities = 1.0 / (1.0 + np.exp(-np.clip(logits, -80.0, 80.0)))
    return Splats(
        means=columns("x", "y", "z"),
        quats=columns("rot_0", "rot_1", "rot_2", "rot_3"),
        scales=np.exp(columns("scale_0", "scale_1", "scale_2")),
        opacities=opacities.astype(np.float32),
        colors=colors,
    )


def _check_shapes(splats: Splats) -> Splats:
    arrays = Splats(*(np.asarray(array, np.float32) for array in splats))
    count = len(arrays.means)
    num_bases = arrays.colors.shape[1] if arrays.colors.ndim == 3 else 0
    expected = Splats(
        (count, 3), (count, 4), (count, 3), (count,), (count, num_bases, 3)
    )
    shapes = Splats(*(array.shape for array in arrays))
    if shapes != expected or num_bases not in _BASES:
        raise ValueError(
            f"shapes are {shapes}; expected means [N, 3], quats [N, 4], scales [N, 3], "
            "opacities [N] and colors [N, K, 3] with K = 1, 4, 9 or 16."
        )
    return arrays


def _property_names(num_bases: int) -> list[str]:
    return [
        *("x", "y", "z", "nx", "ny", "nz"),
        *(f"f_dc_{i}" for i in range(3)),
        *(f"f_rest_{i}" for i in range(3 * (num_bases - 1))),
        "opacity",
        *(f"scale_{i}" for i in range(3)),
        *(f"rot_{i}" for i in range(4)),
    ]


def _to_table(splats: Splats) -> np.ndarray:
    """Structured array of one record per Gaussian, raw values."""
    count, num_bases = splats.colors.shape[:2]
    # All red coefficients of degree 1 and more come first, then green, then blue.
    rest = splats.colors[:, 1:].transpose(0, 2, 1).reshape(count, -1)
    opacities = np.clip(
        splats.opacities.astype(np.float64), _MIN_OPACITY, 1 - _MIN_OPACITY
    )
    norms = np.linalg.norm(splats.quats, axis=1, keepdims=True)
    # The renderer reads a zero quaternion as no rotation.
    quats = np.where(
        norms > 0, splats.quats / np.where(norms > 0, norms, 1), [1.0, 0.0, 0.0, 0.0]
    )
    values = np.concatenate(
        [
            splats.means,
            np.zeros((count, 3)),
            splats.colors[:, 0],
            rest,
            (np.log(opacities) - np.log1p(-opacities))[:, None],
            np.log(np.maximum(splats.scales, _MIN_SCALE)),
            quats,
        ],
        axis=1,
    ).astype("<f4")
    dtype = np.dtype([(name, "<f4") for name in _property_names(num_bases)])
    return np.ascontiguousarray(values).view(dtype)[:, 0]


def _header(table: np.ndarray) -> bytes:
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(table)}",
        *(f"property float {name}" for name in table.dtype.names or ()),
        "end_header",
    ]
    return ("\n".join(lines) + "\n").encode("ascii")


def _parse(path: Path, data: bytes) -> np.ndarray:
    """Reads the vertices of a binary .ply into a structured array."""
    start = data[:_MAX_HEADER].find(b"end_header")
    if not data.startswith(b"ply") or start < 0:
        raise InputError(f"{path}: not a .ply file.")
    body = data.index(b"\n", start) + 1 if b"\n" in data[start:] else len(data)
    lines = data[:start].decode("ascii", "replace").split("\n")
    words = [line.split() for line in lines if line.split()]
    if ["format", "binary_little_endian", "1.0"] not in words:
        raise InputError(f"{path}: only binary_little_endian .ply files are read.")
    count, fields, element = 0, [], ""
    try:
        for keyword, *rest in words:
            if keyword == "element":
                if not element and rest[0] != "vertex":
                    raise ValueError("vertices do not come first")
                element = rest[0]
                count = int(rest[1]) if element == "vertex" else count
            elif keyword == "property" and element == "vertex":
                fields.append((rest[1], _PLY_TYPES[rest[0]]))
        dtype = np.dtype(fields)
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{path}: its header cannot be read ({error}).") from error
    if count < 0 or len(data) - body < count * dtype.itemsize:
        raise InputError(f"{path}: cut short; {count} Gaussians were announced.")
    return np.frombuffer(data, dtype, count=count, offset=body)
