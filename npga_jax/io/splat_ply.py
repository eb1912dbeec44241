"""Writes Gaussians as the .ply files that 3D Gaussian splatting viewers take.

The files hold raw values: logit opacities, log scales, spherical harmonics. `Splats`
holds activated ones; the conversion is done here, and only here.
"""

from pathlib import Path

import numpy as np

from npga_jax.core import InputError, Splats, atomic_write

_MIN_OPACITY = 1e-6
_MIN_SCALE = 1e-12
_BASES = (1, 4, 9, 16)


def write_ply(path: Path, splats: Splats) -> int:
    """Writes a binary .ply in the layout of 3D Gaussian splatting.

    Positions and scales keep the frame and unit of `splats`. Slots of zero opacity
    are left out; opacities are kept within [1e-6, 1 - 1e-6], so that their logits are
    finite. Quaternions are written with unit length, wxyz, normals as zeros. The file
    appears under its name only when it is complete.

    Args:
      path: where to; folders are made.
      splats: arrays of any kind that numpy takes; colors [N, K, 3] of spherical
        harmonics with K = 1, 4, 9 or 16.

    Returns:
      The number of Gaussians written.

    Raises:
      InputError: a visible Gaussian is not finite, there is none or none is visible,
        or the file cannot be written.
      ValueError: the shapes are not those of `Splats`.
    """
    splats = _check_shapes(splats)
    if len(splats.means) == 0:
        raise InputError(f"{path}: there are no Gaussians to write; expected one.")
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


def _check_shapes(splats: Splats) -> Splats:
    arrays = Splats._make(np.asarray(array, np.float32) for array in splats)
    count = len(arrays.means)
    num_bases = arrays.colors.shape[1] if arrays.colors.ndim == 3 else 0
    expected = [(count, 3), (count, 4), (count, 3), (count,), (count, num_bases, 3)]
    shapes = [array.shape for array in arrays]
    if shapes != expected or num_bases not in _BASES:
        raise ValueError(
            f"the shapes of means, quats, scales, opacities and colors are {shapes}; "
            "expected means [N, 3], quats [N, 4], scales [N, 3], "
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
