"""Lids of one camera's video: how far they are seen shut, and codes that say so."""

import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array
from npga_jax.nphm import METRES_PER_UNIT, HeadModel
from npga_jax.tracking.alignment import Similarity
from npga_jax.tracking.equations import PriorWeights
from npga_jax.tracking.landmark_term import (
    landmarks_of,
    model_landmarks,
    packaged_table,
)
from npga_jax.tracking.monocular import Lens
from npga_jax.tracking.shutting import LOWER_LIDS, UPPER_LIDS, lids_motion, shut_eyes

_CORNERS = ((33, 133), (263, 362))
_NOISE, _CERTAIN = 0.15, 0.35
"""Of the way that lids go when eyes shut: up to the first nothing is made of it, from
the second on all."""
_USUAL_QUANTILE = 0.7
"""Eyes are open in more than the rest of the frames."""
_LEAST_FOLD = 0.25
"""Share of the gap that the head model must be able to shut."""
_LEAST_GAP = 1e-3
"""Of the eye's width, below which nothing is told from it."""


def lid_gaps(points: np.ndarray) -> np.ndarray:
    """Gaps between lids in widths of the eye: [..., 478, D] -> [..., 2]."""
    gaps = []
    for upper, lower, (outer, inner) in zip(
        UPPER_LIDS, LOWER_LIDS, _CORNERS, strict=True
    ):
        gap = np.linalg.norm(points[..., upper, :] - points[..., lower, :], axis=-1)
        width = np.linalg.norm(points[..., outer, :] - points[..., inner, :], axis=-1)
        gaps.append(gap.mean(axis=-1) / np.maximum(width, 1e-9))
    return np.stack(gaps, axis=-1)


def closed_lids(seen: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How far lids are shut: 0 as usual or wider, 1 shut.

    Args:
      seen: [T, 2] gaps in the images.
      expected: [T, 2] gaps that open eyes would have there: a nod makes them smaller.

    Returns:
      [T, 2].
    """
    share = seen / np.maximum(expected, _LEAST_GAP)
    usual = np.quantile(share, _USUAL_QUANTILE, axis=0)
    closed = 1 - share / np.maximum(usual, 1e-9)
    return np.where(usual > _LEAST_GAP, np.clip(closed, 0.0, 1.0), 0.0)


def lower_lids(
    model: HeadModel,
    geo: Array,
    exp: np.ndarray,
    poses: list[Similarity],
    pixels: np.ndarray,
    lens: Lens,
    prior: PriorWeights,
) -> np.ndarray:
    """Shuts the lids of codes as far as they are seen shut, where they are less so.

    A few landmarks weigh too little against the prior of codes to fold a lid; and
    smoothing in time takes blinks for noise.

    Args:
      exp: [T, E].
      poses: T of them; the camera is the world.
      pixels: [T, 478, 2] landmarks as seen.
      lens: of the camera.
      prior: of expressions.

    Returns:
      [T, E].
    """
    if not len(exp):
        return exp
    table = packaged_table()
    landmarks = model_landmarks(model, table, np.arange(len(table.points)))

    def place(code):
        places, _ = landmarks_of(model.params, model.cfg, landmarks, geo, code)
        return np.asarray(places)

    rest = np.median(exp, axis=0)
    at_rest = place(rest)
    expected = np.stack([lid_gaps(_project(pose, at_rest, lens)) for pose in poses])
    closed = closed_lids(lid_gaps(pixels), expected)
    sure = np.clip((closed - _NOISE) / (_CERTAIN - _NOISE), 0.0, 1.0)
    rows = np.flatnonzero(sure.any(axis=1))
    if not len(rows):
        return exp
    shut = np.asarray(shut_eyes(model, geo, jnp.asarray(rest), prior))
    wide = lid_gaps(at_rest)
    narrow = lid_gaps(place(rest + shut[0]))
    folds = wide - narrow
    gaps = np.stack([lid_gaps(place(exp[i])) for i in rows])
    already = (wide - gaps) / np.maximum(folds, _LEAST_GAP)
    missing = np.maximum(closed[rows] - np.clip(already, 0.0, 1.0), 0.0) * sure[rows]
    missing = np.where(folds > _LEAST_FOLD * wide, missing, 0.0)
    exp = exp.copy()
    exp[rows] += lids_motion(shut, missing)
    return exp


def _project(pose: Similarity, points: np.ndarray, lens: Lens) -> np.ndarray:
    """Points of a head, NPHM units, as a camera sees them: [P, 3] -> [P, 2] pixels."""
    metres = pose.scale * METRES_PER_UNIT * points
    x, y, z = lens.K @ (metres @ pose.rotation.T + pose.translation).T
    return np.stack([x, y], axis=-1) / np.maximum(z, 1e-6)[:, None]
