"""The zero level set of a posed head, without a mesh: nearest points on it."""

from typing import NamedTuple

import numpy as np

from npga_jax.nphm.codes import Codes
from npga_jax.nphm.model import HeadModel
from npga_jax.nphm.streaming import evaluate_points

_ITERATIONS = 4
_LONGEST_STEP = 0.1
"""NPHM units; one step of a field that is no true distance must not fly away."""


class SurfacePoints(NamedTuple):
    """Points brought onto a surface."""

    points: np.ndarray  # [N, 3] NPHM units
    normals: np.ndarray  # [N, 3] unit, outward
    residual: np.ndarray  # [N] what is left of the signed distance


def project_to_surface(
    model: HeadModel, points: np.ndarray, codes: Codes, *, posed: bool = True
) -> SurfacePoints:
    """Follows the gradient of the signed distance to the surface (Newton's method).

    For points near the surface this is the nearest point of it, to second order.

    Args:
      points: [N, 3] NPHM units.
      codes: one head, every field [dim].
      posed: with the expression; False for the canonical head.
    """
    moved = np.asarray(points, np.float32)
    for _ in range(_ITERATIONS):
        values = evaluate_points(model, moved, codes, posed=posed, with_gradient=True)
        assert values.gradient is not None  # It is asked for.
        squared = np.maximum((values.gradient**2).sum(-1), 1e-6)
        step = values.sdf / squared
        length = np.abs(step) * np.sqrt(squared)
        step *= np.minimum(1.0, _LONGEST_STEP / np.maximum(length, 1e-12))
        moved = moved - step[:, None] * values.gradient
    values = evaluate_points(model, moved, codes, posed=posed, with_gradient=True)
    assert values.gradient is not None  # It is asked for.
    length = np.linalg.norm(values.gradient, axis=-1, keepdims=True)
    return SurfacePoints(moved, values.gradient / np.maximum(length, 1e-9), values.sdf)
