"""The rigid motion between two sets of points."""

from typing import TypeVar

import jax
import numpy as np

from npga_jax.core.precision import exact_products

_Kind = TypeVar("_Kind", np.ndarray, jax.Array)


@exact_products
def rigid_motion(source: _Kind, target: _Kind) -> tuple[_Kind, _Kind]:
    """The rigid motion with the least squares (Kabsch, 1976); it never mirrors.

    Args:
      source: [P, 3], of NumPy or of JAX, in any unit.
      target: [P, 3], the same points moved.

    Returns:
      Rotation [3, 3] and translation [3] of the arrays' own kind and precision:
      target = rotation @ source + translation. No rotation where all points coincide.
    """
    xp = source.__array_namespace__()
    centre, target_centre = source.mean(axis=0), target.mean(axis=0)
    u, _, vt = xp.linalg.svd((target - target_centre).T @ (source - centre))
    last = xp.sign(xp.linalg.det(u @ vt))
    rotation = u * xp.stack([xp.ones_like(last), xp.ones_like(last), last]) @ vt
    return rotation, target_centre - rotation @ centre
