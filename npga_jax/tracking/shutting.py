"""What a person's expression code is when eyes are shut, from the head model alone.

The landmarks of the upper lids are asked to come down on those of the lower ones; what
the rest of the face does is left to the model. No frame is needed in which eyes are
shut, and no list of named expressions.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from npga_jax.core import Array
from npga_jax.nphm import MILLIMETRES_PER_UNIT, HeadModel
from npga_jax.tracking import schedule
from npga_jax.tracking.equations import Observations, PriorWeights, Unknowns
from npga_jax.tracking.landmark_term import (
    LandmarkTable,
    ModelLandmarks,
    Sightings,
    landmark_term,
    model_landmarks,
    packaged_table,
    place_landmarks,
)
from npga_jax.tracking.terms import Head, Term

_UPPER = (
    (246, 161, 160, 159, 158, 157, 173),
    (466, 388, 387, 386, 385, 384, 398),
)
"""MediaPipe's landmarks of the upper lids, of the person's right and left eye, from
the outer corner to the inner one."""
_LOWER = (
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
_CORNERS = ((33, 133), (263, 362))
_COMING_DOWN = 0.25
"""Of the way that lids go when eyes shut: less is not told from noise."""
_STAGE = schedule.FitStage(0.008, 0.03, 0.5, 8)


def lid_landmarks(points: np.ndarray, table: LandmarkTable) -> np.ndarray:
    """Which places on the mean head are beside the lids: [L, 3] -> [L] bool."""
    lids = table.points[np.concatenate([np.ravel(_UPPER), np.ravel(_LOWER)])]
    apart = np.linalg.norm(points[:, None] - lids, axis=-1)
    return apart.min(axis=1) < _BESIDE


def without_lids(term: Term) -> Term:
    """Evidence of landmarks without those of the lids.

    A detector has its own idea of eyes: it moves the lids of shut eyes half of the way.
    """
    points, across, weights = term.frames
    shared: ModelLandmarks = term.shared
    lids = lid_landmarks(np.asarray(shared.points), packaged_table())
    return dataclasses.replace(term, frames=(points, across, weights * ~lids))


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

    @jax.jit
    def place(geo, rest):
        head = Head(geo, rest, jnp.zeros(6))
        return place_landmarks(model.params, model.cfg, landmarks, head)[:2]

    places, valid = (np.asarray(x) for x in place(geo, rest))
    targets, weights = zip(
        *(_shut(places, valid, eyes) for eyes in ((0, 1), (0,), (1,))), strict=True
    )
    count = len(targets)
    across = np.broadcast_to(np.eye(3), (*np.shape(weights), 3, 3))
    term = landmark_term(
        landmarks, Sightings(np.stack(targets), across, np.stack(weights)), _NOISE
    )
    nothing = Observations(
        jnp.zeros((count, 1, 3)), jnp.zeros((count, 1, 3)), jnp.zeros((count, 1))
    )
    found = schedule.fit_expressions(
        model,
        nothing,
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
    return found.exp - rest


def closed_lids(pixels: np.ndarray) -> np.ndarray:
    """How far the lids of a video's face are shut, from the landmarks' gaps: [T, 2].

    Args:
      pixels: [T, 478, 2].

    Returns:
      Of the right eye and the left one: 0 as in the median frame, 1 shut.
    """
    gaps = []
    for upper, lower, (outer, inner) in zip(_UPPER, _LOWER, _CORNERS, strict=True):
        gap = np.linalg.norm(pixels[:, upper] - pixels[:, lower], axis=-1).mean(axis=1)
        width = np.linalg.norm(pixels[:, outer] - pixels[:, inner], axis=-1)
        gaps.append(gap / np.maximum(width, 1e-6))
    gaps = np.stack(gaps, axis=1)
    usual = np.median(gaps, axis=0)
    return np.clip(1 - gaps / np.maximum(usual, 1e-6), 0.0, 1.0)


def lower_lids(
    model: HeadModel, geo: Array, exp: np.ndarray, closed: np.ndarray, prior
) -> np.ndarray:
    """Shuts the lids of codes as far as they are seen shut, where they are less so.

    A few landmarks weigh too little against the prior of codes to fold a lid; and
    smoothing in time takes blinks for noise.

    Args:
      exp: [T, E].
      closed: [T, 2] see `closed_lids`.
      prior: of expressions.

    Returns:
      [T, E].
    """
    if (closed <= _COMING_DOWN).all():
        return exp
    rest = jnp.asarray(np.median(exp, axis=0))
    both, right, left = np.asarray(shut_eyes(model, geo, rest, prior))
    table = packaged_table()
    used = np.concatenate([np.ravel(_UPPER), np.ravel(_LOWER)])
    landmarks = model_landmarks(model, table, used)

    @jax.jit
    def gap(code):
        head = Head(geo, code, jnp.zeros(6))
        places, _, _ = place_landmarks(model.params, model.cfg, landmarks, head)
        upper, lower = places.reshape(2, 2, -1, 3)
        return jnp.linalg.norm(upper - lower, axis=-1).mean(axis=-1)

    wide, narrow = (np.asarray(gap(code)) for code in (rest, rest + both))
    rows = np.flatnonzero((closed > _COMING_DOWN).any(axis=1))
    gaps = np.asarray([gap(jnp.asarray(exp[row])) for row in rows])
    already = (wide - gaps) / np.maximum(wide - narrow, 1e-6)
    own = closed[rows]
    missing = np.where(own > _COMING_DOWN, np.maximum(own - already, 0.0), 0.0)
    by_both = missing.min(axis=1, keepdims=True)
    by_right, by_left = np.split(missing - by_both, 2, axis=1)
    exp = exp.copy()
    exp[rows] += by_both * both + by_right * right + by_left * left
    return exp


def _shut(
    places: np.ndarray, valid: np.ndarray, eyes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Where landmarks would be if some eyes were shut [L, 3], and weights [L]."""
    upper = np.concatenate([_UPPER[eye] for eye in eyes])
    lower = np.concatenate([_LOWER[eye] for eye in eyes])
    lids = np.concatenate([upper, lower])
    target = places.copy()
    meeting = (1 - _BY_UPPER) * places[upper] + _BY_UPPER * places[lower]
    target[upper] = target[lower] = meeting
    apart = np.linalg.norm(places[:, None] - places[lids], axis=-1).min(axis=1)
    weights = np.where(apart < _AROUND, 0.0, _REST_WEIGHT)
    weights[lids] = 1.0
    return target, weights * valid
