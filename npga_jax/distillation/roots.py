"""The slow and exact way forward: Broyden's method on the backward field."""

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array
from npga_jax.distillation.person import Backward, move_back
from npga_jax.nphm import METRES_PER_UNIT, StopRules, find_roots

_RULES = StopRules(diverged=1.0, max_steps=50)
"""Lips part by more than MonoNPHM's rule lets a search stray."""


def pose_by_roots(
    backward: Backward,
    points: Array,
    expr: Array,
    starts: Array,
) -> tuple[np.ndarray, np.ndarray]:
    """Poses canonical points by inverting B, one code after the other.

    Args:
      points: [P, 3] canonical, metres.
      expr: [T, E].
      starts: [T, P, 3] posed, metres: where the search begins; where B has several
        roots, it decides which of them is found.

    Returns:
      Posed points [T, P, 3], metres, and whether each is a root [T, P].
    """

    @jax.jit
    def solve_all(points, expr, starts):
        def solve(case):
            code, start = case

            def displace(x):
                moved, _ = move_back(backward, x[None] * METRES_PER_UNIT, code[None])
                return moved[0] / METRES_PER_UNIT

            return find_roots(
                displace,
                points / METRES_PER_UNIT,
                start / METRES_PER_UNIT,
                rules=_RULES,
            )

        return jax.lax.map(solve, (expr, starts))

    found = solve_all(*(jnp.asarray(x) for x in (points, expr, starts)))
    return np.asarray(found.points) * METRES_PER_UNIT, np.asarray(found.valid)
