"""What a person's expression code is when eyes are shut, from the head model alone.

The landmarks of the upper lids are asked to come down on those of the lower ones; what
the rest of the face does is left to the model. No frame is needed in which eyes are
shut, and no list of named expressions.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array
from npga_jax.nphm import MILLIMETRES_PER_UNIT, HeadModel
from npga_jax.tracking import schedule
from npga_jax.tracking.equations import PriorWeights, Unknowns, unobserved
from npga_jax.tracking.landmark_term import (
    LandmarkTable,
    ModelLandmarks,
    Sightings,
    landmark_term,
    landmarks_of,
    model_landmarks,
    packaged_table,
)
from npga_jax.tracking.terms import Term

UPPER_LIDS = (
    (246, 161, 160, 159, 158, 157, 173),
    (466, 388, 387, 386, 385, 384, 398),
)
"""MediaPipe's landmarks of the upper lids, of the person's right and left eye, from
the outer corner to the inner one."""
LOWER_LIDS = (
    (7, 163, 144, 145, 153, 154, 155),
    (249, 390, 373, 374, 380, 381, 382),
)
"""Those of the lower lids, below them."""
_BESIDE = 7.0 / MILLIMETRES_PER_UNIT
"""Nearer to the lids' landmarks than this, others move with the lids."""
_AROUND = 12.0 / MILLIMETRES_PER_UNIT
"""Nearer than this, skin may move when eyes shut."""
_BY_UPPER = 0.9
"""Share of the way that the upper lid goes."""
_NOISE = 0.5 / MILLIMETRES_PER_UNIT
_SCALE = 20.0 / MILLIMETRES_PER_UNIT
_REST_WEIGHT = 0.1
_STAGE = schedule.FitStage(0.008, 0.03, 0.5, 8)


def lid_landmarks(points: np.ndarray, table: LandmarkTable) -> np.ndarray:
    """Which places on the mean head are beside the lids: [L, 3] -> [L] bool."""
    lids = table.points[np.concatenate([np.ravel(UPPER_LIDS), np.ravel(LOWER_LIDS)])]
    apart = np.linalg.norm(points[:, None] - lids, axis=-1)
    return apart.min(axis=1) < _BESIDE


def without_lids(term: Term, rows: np.ndarray) -> Term:
    """Evidence of landmarks, of some frames without those of the lids.

    A detector has its own idea of eyes: it moves the lids of shut eyes half of the way.

    Args:
      rows: [T] bool, frames whose lids something else says more of.
    """
    points, across, weights = term.frames
    shared: ModelLandmarks = term.shared
    lids = lid_landmarks(np.asarray(shared.points), packaged_table())
    lids = np.tile(lids, weights.shape[1] // len(lids))
    kept = ~(rows[:, None] & lids)
    return dataclasses.replace(term, frames=(points, across, weights * kept))


def shut_eyes(model: HeadModel, geo: Array, rest: Array, prior: PriorWeights) -> Array:
    """What to add to an expression code to shut both eyes, the right or the left one.

    Args:
      model: head model.
      geo: [G] identity.
      rest: [E] expression with open eyes.
      prior: of expressions.

    Returns:
      [3, E].
    """
    table = packaged_table()
    landmarks = model_landmarks(model, table, np.arange(len(table.points)))
    landmarks = landmarks._replace(offsets=jnp.zeros_like(landmarks.offsets))

    found = landmarks_of(model.params, model.cfg, landmarks, geo, rest)
    places, valid = (np.asarray(x) for x in found)
    targets, weights = zip(
        *(_shut(places, valid, eyes) for eyes in ((0, 1), (0,), (1,))), strict=True
    )
    count = len(targets)
    across = np.broadcast_to(np.eye(3), (*np.shape(weights), 3, 3))
    term = landmark_term(
        landmarks, Sightings(np.stack(targets), across, np.stack(weights)), _NOISE
    )
    fitted = schedule.fit_expressions(
        model,
        unobserved(count),
        Unknowns(geo, jnp.tile(rest, (count, 1)), jnp.zeros((count, 6))),
        np.zeros(count),
        prior._replace(
            smooth_exp=0.0,
            pose_rotation=schedule.FIXED,
            pose_translation=schedule.FIXED,
        ),
        (_STAGE,),
        terms=(dataclasses.replace(term, scale=jnp.float32(_SCALE)),),
    )
    return fitted.exp - rest


def lids_motion(shut: Array, closed: np.ndarray) -> np.ndarray:
    """What to add to codes whose right and left eyes are to shut by some shares.

    Args:
      shut: [3, E] `shut_eyes`.
      closed: [T, 2].

    Returns:
      [T, E].
    """
    both, right, left = np.asarray(shut)
    by_both = closed.min(axis=1, keepdims=True)
    by_right, by_left = np.split(closed - by_both, 2, axis=1)
    return by_both * both + by_right * right + by_left * left


def _shut(
    places: np.ndarray, valid: np.ndarray, eyes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Where landmarks would be if some eyes were shut [L, 3], and weights [L]."""
    upper = np.concatenate([UPPER_LIDS[eye] for eye in eyes])
    lower = np.concatenate([LOWER_LIDS[eye] for eye in eyes])
    lids = np.concatenate([upper, lower])
    target = places.copy()
    meeting = (1 - _BY_UPPER) * places[upper] + _BY_UPPER * places[lower]
    target[upper] = target[lower] = meeting
    apart = np.linalg.norm(places[:, None] - places[lids], axis=-1).min(axis=1)
    weights = np.where(apart < _AROUND, 0.0, _REST_WEIGHT)
    weights[upper] = weights[lower] = valid[upper] & valid[lower]
    return target, weights * valid
