"""How well F inverts the head model's backward field, in millimetres."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import cKDTree

from npga_jax.distillation.distill import cycle_error, pose_points
from npga_jax.distillation.person import Backward, move_back
from npga_jax.distillation.sampling import Domain
from npga_jax.nphm.config import METRES_PER_UNIT
from npga_jax.nphm.root_finding import StopRules, find_roots, pointwise_jacobian
from npga_jax.types import Params

_MM = 1000.0
_SKIN_DEPTH = -0.1
"""Metres, z of the head frame: the skin of the face lies in front of it."""
_NEIGHBOURS = 0.002
"""Metres between canonical points whose parting is looked at."""
_PARTED = 0.004
"""Metres that neighbours must part by to count as lips."""
_MOST_PARTED = 20
_NEAR_LIPS = 0.005
_LARGEST_BATCH = 4000


class ForwardReport(NamedTuple):
    """F against B on codes that it was not made from."""

    num_codes: int
    num_points: int
    cycle_median_mm: float
    cycle_p95_mm: float
    cycle_max_mm: float
    roots_found: float
    """Share of the points for which Broyden's method, started at F, converged."""
    roots_median_mm: float
    roots_p95_mm: float
    smallest_determinant: float
    """Of d x_posed / d x, away from the lips: above zero, nothing is folded over."""
    folded: float
    """Share of the points, lips included, with a determinant below zero."""
    lips_closed_mm: float
    """Median canonical distance of the 20 pairs of neighbours that part most when the
    mouth is most open: the lips."""
    lips_open_mm: float
    """Their median distance as F poses them; zero if no mouth opens."""
    lips_open_by_roots_mm: float
    """The same by Broyden's method."""


def measure_forward(
    params: Params,
    backward: Backward,
    domain: Domain,
    codes: np.ndarray,
    *,
    octaves: int,
) -> ForwardReport:
    """Measures F on the skin.

    Args:
      domain: the canonical surface.
      codes: [T, E] held-out codes.
    """
    surface = np.asarray(domain.surface)
    skin = np.flatnonzero(surface[:, 2] > _SKIN_DEPTH)
    skin = skin[:: max(1, len(skin) // _LARGEST_BATCH)]
    points, expr = domain.surface[skin], jnp.asarray(codes)
    pose = jax.jit(
        lambda points, expr: pose_points(params, points, expr, octaves=octaves)
    )
    error = jax.jit(
        lambda: cycle_error(params, backward, points, expr, octaves=octaves)
    )()
    cycle = np.linalg.norm(np.asarray(error), axis=-1)
    posed = pose(points, expr)
    roots, valid = _roots(backward, points, expr, posed)
    miss = _MM * np.linalg.norm(roots - np.asarray(posed), axis=-1)[valid]

    def determinants(code):
        moved = pointwise_jacobian(
            lambda x: pose_points(params, x, code[None], octaves=octaves)[0], points
        )
        return jnp.linalg.det(moved)

    determinant = np.asarray(jax.jit(lambda z: jax.lax.map(determinants, z))(expr))
    lips = _part_lips(pose, backward, domain.surface[surface[:, 2] > _SKIN_DEPTH], expr)
    away = np.ones(len(skin), bool)
    if len(lips.points):
        away = cKDTree(lips.points).query(surface[skin])[0] > _NEAR_LIPS
    return ForwardReport(
        num_codes=len(codes),
        num_points=len(skin),
        cycle_median_mm=float(np.median(cycle)),
        cycle_p95_mm=float(np.quantile(cycle, 0.95)),
        cycle_max_mm=float(cycle.max()),
        roots_found=float(valid.mean()),
        roots_median_mm=float(np.median(miss)),
        roots_p95_mm=float(np.quantile(miss, 0.95)),
        smallest_determinant=float(determinant[:, away].min()),
        folded=float(np.mean(determinant < 0)),
        lips_closed_mm=lips.closed_mm,
        lips_open_mm=lips.open_mm,
        lips_open_by_roots_mm=lips.by_roots_mm,
    )


def _roots(backward, points, expr, starts):
    """Broyden's method per code: posed points [T, P, 3] in metres, and where found."""

    @jax.jit
    def solve(points, expr, starts):
        def displace(x):
            moved, _ = move_back(backward, x * METRES_PER_UNIT, expr)
            return moved / METRES_PER_UNIT

        targets = jnp.broadcast_to(points, starts.shape)
        # Lips part by more than MonoNPHM's rule lets a search stray.
        rules = StopRules(diverged=1.0, max_steps=50)
        return find_roots(
            displace,
            targets / METRES_PER_UNIT,
            starts / METRES_PER_UNIT,
            rules=rules,
        )

    found = solve(points, expr, starts)
    return np.asarray(found.points) * METRES_PER_UNIT, np.asarray(found.valid)


class _Lips(NamedTuple):
    points: np.ndarray  # [L, 3] canonical, all that part
    closed_mm: float
    open_mm: float
    by_roots_mm: float


def _part_lips(pose, backward, points, expr) -> _Lips:
    """Finds canonical neighbours that part, and how far they do."""
    rest = np.asarray(points)
    pairs = cKDTree(rest).query_pairs(_NEIGHBOURS, output_type="ndarray")

    def gaps(posed):
        return np.linalg.norm(posed[pairs[:, 0]] - posed[pairs[:, 1]], axis=-1)

    posed = np.asarray(pose(points, expr))
    stretched = [gaps(p) - gaps(rest) for p in posed]
    widest = int(np.argmax([np.quantile(s, 0.999) for s in stretched]))
    starts = posed[widest : widest + 1]
    roots, _ = _roots(backward, points, expr[widest : widest + 1], starts)
    by_roots = gaps(roots[0])
    most = np.argsort(by_roots)[-_MOST_PARTED:]
    parted = np.unique(pairs[by_roots - gaps(rest) > _PARTED])

    def median(values):
        return float(_MM * np.median(values[most]))

    return _Lips(
        rest[parted], median(gaps(rest)), median(gaps(starts[0])), median(by_roots)
    )
