"""How well F inverts the head model's backward field, in millimetres."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial import KDTree

from npga_jax.core import Params
from npga_jax.distillation.distill import cycle_error, determinants, pose_points
from npga_jax.distillation.person import Backward
from npga_jax.distillation.roots import pose_by_roots
from npga_jax.distillation.sampling import Domain

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
_CYCLE_MEDIAN_MM, _CYCLE_P95_MM, _ROOTS_MEDIAN_MM = 0.5, 2.0, 0.5
_LIPS_SHARE = 0.5


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
    mouth is most open: the lips. This and what follows are zero if none part."""
    lips_open_mm: float
    """Their median distance as F poses them."""
    lips_open_by_roots_mm: float
    """The same by Broyden's method."""


class Check(NamedTuple):
    """A figure beside what it should be."""

    name: str
    figures: str
    target: str
    is_met: bool


def check_report(report: ForwardReport) -> list[Check]:
    """What F should reach (NPGA, section 3.4), and whether it does."""
    r = report
    roots_part = r.lips_open_by_roots_mm - r.lips_closed_mm
    return [
        Check(
            "cycle error on the skin",
            f"{r.cycle_median_mm:.2f} mm median, {r.cycle_p95_mm:.2f} mm at 95 %",
            f"below {_CYCLE_MEDIAN_MM:g} and {_CYCLE_P95_MM:g} mm",
            r.cycle_median_mm < _CYCLE_MEDIAN_MM and r.cycle_p95_mm < _CYCLE_P95_MM,
        ),
        Check(
            "distance from Broyden's roots",
            f"{r.roots_median_mm:.2f} mm median, {r.roots_p95_mm:.2f} mm at 95 %, "
            f"{100 * r.roots_found:.1f} % of the roots found",
            f"median below {_ROOTS_MEDIAN_MM:g} mm",
            r.roots_median_mm < _ROOTS_MEDIAN_MM,
        ),
        Check(
            "smallest det(J) away from the lips",
            f"{r.smallest_determinant:.2f}; {100 * r.folded:.2f} % of all points below "
            "zero",
            "above 0",
            r.smallest_determinant > 0,
        ),
        Check(
            "lips, most open mouth",
            f"{r.lips_closed_mm:.1f} mm closed, {r.lips_open_mm:.1f} mm open, "
            f"{r.lips_open_by_roots_mm:.1f} mm by Broyden's roots",
            "part by more than half of what the roots say",
            r.lips_open_mm - r.lips_closed_mm >= _LIPS_SHARE * roots_part,
        ),
    ]


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
    roots, valid = pose_by_roots(backward, points, expr, posed)
    miss = _MM * np.linalg.norm(roots - np.asarray(posed), axis=-1)[valid]
    if not valid.any():
        miss = np.array([np.inf])

    determinant = jax.jit(lambda z: determinants(params, points, z, octaves=octaves))
    determinant = np.asarray(determinant(expr))
    lips = _part_lips(pose, backward, domain.surface[surface[:, 2] > _SKIN_DEPTH], expr)
    away = np.ones(len(skin), bool)
    if len(lips.points):
        away = KDTree(lips.points).query(surface[skin])[0] > _NEAR_LIPS
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


class _Lips(NamedTuple):
    points: np.ndarray  # [L, 3] canonical, all that part
    closed_mm: float
    open_mm: float
    by_roots_mm: float


def _part_lips(pose, backward, points, expr) -> _Lips:
    """Finds canonical neighbours that part, and how far they do."""
    rest = np.asarray(points)
    none = _Lips(rest[:0], 0.0, 0.0, 0.0)
    pairs = KDTree(rest, leafsize=16).query_pairs(_NEIGHBOURS, output_type="ndarray")
    if not len(pairs):
        return none

    def gaps(posed):
        return np.linalg.norm(posed[pairs[:, 0]] - posed[pairs[:, 1]], axis=-1)

    posed = np.asarray(pose(points, expr))
    stretched = [gaps(p) - gaps(rest) for p in posed]
    widest = int(np.argmax([np.quantile(s, 0.999) for s in stretched]))
    starts = posed[widest : widest + 1]
    roots, valid = pose_by_roots(backward, points, expr[widest : widest + 1], starts)
    pairs = pairs[valid[0][pairs].all(axis=1)]
    by_roots = gaps(roots[0])
    is_parted = by_roots - gaps(rest) > _PARTED
    if not is_parted.any():
        return none
    most = np.argsort(by_roots)[-_MOST_PARTED:]
    parted = np.unique(pairs[is_parted])

    def median(values):
        return float(_MM * np.median(values[most]))

    return _Lips(
        rest[parted], median(gaps(rest)), median(gaps(starts[0])), median(by_roots)
    )
