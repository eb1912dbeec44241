"""Landmarks of the face as evidence: where the model has them, and where they are seen.

The head model is a field and has no landmarks. A table says where they lie on the mean
head; the model's anchors carry them to a person, and the inverse of its deformation to
an expression. What is observed is a point, or a ray where one camera alone sees it.
"""

import importlib.resources
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.interpolate import RBFInterpolator

from npga_jax.core import Array, Params, load_npz
from npga_jax.nphm import (
    HeadModel,
    NPHMConfig,
    StopRules,
    find_roots,
    invert_3x3,
    predict_anchors,
)
from npga_jax.tracking.residuals import rotation_matrix
from npga_jax.tracking.terms import (
    Head,
    Linear,
    Term,
    canonical_gradient,
    canonical_places,
    condition_of,
)

_MOST_BYTES = 1 << 20
_SMOOTHING = 1e-6
"""Of the motions between anchors."""
_RULES = StopRules(converged=8e-4, diverged=0.3, max_steps=8)
"""A fifth of a millimetre."""
_FARTHEST = 0.3
"""NPHM units by which an expression may move a landmark."""
_SCALE_IN_NOISES = 3.0


class LandmarkTable(NamedTuple):
    """Where landmarks lie on the neutral mean head, NPHM units.

    A detector places a landmark beside the skin that it keeps to. That skin moves with
    the expression; how far beside it the landmark is seen does not.
    """

    points: np.ndarray  # [478, 3] of the surface
    offsets: np.ndarray  # [478, 3] from there, in the model's frame
    spread: np.ndarray  # [478] how far detections are off, root of the mean square


class ModelLandmarks(NamedTuple):
    """Some landmarks of a head model."""

    points: jax.Array  # [L, 3] on the mean head
    offsets: jax.Array  # [L, 3] in the model's frame, from where the points are posed
    by_anchor: jax.Array  # [L, n] how they follow the anchors
    anchors: jax.Array  # [n, 3] of the mean head


class Sightings(NamedTuple):
    """Landmarks as seen, all frames; R of them each, brought near the model's frame."""

    points: np.ndarray  # [T, R, 3] the point itself, or any on its ray
    across: np.ndarray  # [T, R, 3, 3] identity, or the projection across the ray
    weights: np.ndarray  # [T, R]


def packaged_table() -> LandmarkTable:
    """The table of MediaPipe's landmarks that ships with the package."""
    path = importlib.resources.files("npga_jax.tracking") / "landmarks.npz"
    arrays = load_npz(Path(str(path)), "the table of landmarks", max_bytes=_MOST_BYTES)
    return LandmarkTable(arrays["points"], arrays["offsets"], arrays["spread"])


def model_landmarks(
    model: HeadModel, table: LandmarkTable, used: np.ndarray
) -> ModelLandmarks:
    """Ties some of a table's landmarks to a model's anchors.

    Args:
      model: head model.
      table: of its mean head.
      used: [L] which landmarks.
    """
    points = table.points[used]
    geo = jnp.zeros((1, model.cfg.lat_dim_geo))
    mean = np.asarray(predict_anchors(model.params, model.cfg, geo)[0], np.float64)
    # Pairs of mirror points may coincide on the plane of symmetry.
    single, first = np.unique(mean, axis=0, return_index=True)
    warp = RBFInterpolator(
        single, np.eye(len(single)), kernel="linear", degree=0, smoothing=_SMOOTHING
    )
    by_anchor = np.zeros((len(points), len(mean)))
    by_anchor[:, first] = warp(points)
    values = (points, table.offsets[used], by_anchor, mean)
    return ModelLandmarks(*(jnp.asarray(x, jnp.float32) for x in values))


def landmark_term(
    landmarks: ModelLandmarks, sightings: Sightings, noise: float
) -> Term:
    """Holds a model's landmarks where they are seen.

    Args:
      landmarks: L of them; R is L, or a multiple of it where several cameras see them.
      sightings: of all frames.
      noise: NPHM units, of a landmark whose weight is 1.
    """
    return Term(
        frames=tuple(jnp.asarray(x, jnp.float32) for x in sightings),
        shared=landmarks,
        noise=jnp.float32(noise),
        scale=jnp.float32(_SCALE_IN_NOISES * noise),
        evaluate=_evaluate,
        linearize=_linearize,
    )


def place_landmarks(
    params: Params, cfg: NPHMConfig, landmarks: ModelLandmarks, head: Head
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The skin that a head's landmarks keep to, in the model's frame.

    Returns:
      Places [L, 3], without the offsets; which are found [L] bool; what the
      deformation reads [C].
    """
    condition = condition_of(params, cfg, head.geo, head.exp)
    at_rest = _canonical(params, cfg, landmarks, head.geo)
    found = find_roots(
        lambda x: canonical_places(params, x, condition), at_rest, rules=_RULES
    )
    moved = jnp.linalg.norm(found.points - at_rest, axis=-1)
    return found.points, found.valid & (moved < _FARTHEST), condition


@jax.jit(static_argnames="cfg")
def landmarks_of(
    params: Params, cfg: NPHMConfig, landmarks: ModelLandmarks, geo: Array, exp: Array
) -> tuple[jax.Array, jax.Array]:
    """Skin that landmarks of an unmoved head keep to [L, 3]; which are found [L]."""
    return place_landmarks(params, cfg, landmarks, Head(geo, exp, jnp.zeros(6)))[:2]


def _canonical(params, cfg, landmarks: ModelLandmarks, geo: Array) -> jax.Array:
    anchors = predict_anchors(params, cfg, geo[None])[0]
    return landmarks.points + landmarks.by_anchor @ (anchors - landmarks.anchors)


def _residuals(seen: jax.Array, valid: jax.Array, frame, head: Head):
    """Of landmarks [L, 3] in the model's frame, from where they are seen."""
    points, across, weights = frame
    views = len(points) // len(seen)
    # In the frame of the sightings.
    own = (seen - head.pose[3:]) @ rotation_matrix(head.pose[:3])
    apart = jnp.tile(own, (views, 1)) - points
    values = jnp.einsum("rij,rj->ri", across, apart)
    return values.reshape(-1), jnp.repeat(weights * jnp.tile(valid, views), 3)


def _evaluate(params, cfg, landmarks, frame, head: Head, _):
    places, valid, _ = place_landmarks(params, cfg, landmarks, head)
    return _residuals(places + landmarks.offsets, valid, frame, head)


def _linearize(params, cfg, landmarks, frame, head: Head, _, with_identity) -> Linear:
    places, valid, condition = place_landmarks(params, cfg, landmarks, head)
    seen = places + landmarks.offsets
    values, weights = _residuals(seen, valid, frame, head)
    rows = [
        canonical_gradient(params, cfg, lambda x, a=axis: x[:, a], places, condition)
        for axis in range(3)
    ]
    by_place = jnp.stack([row[1] for row in rows], axis=1)  # [L, 3, 3]
    by_condition = jnp.stack([row[2] for row in rows], axis=1)  # [L, 3, C]
    inverse = invert_3x3(by_place)
    by_code = -inverse @ by_condition[..., -cfg.lat_dim_exp :]
    # A further small motion of the observed points is the inverse one of these.
    zero = jnp.zeros_like(places[:, 0])
    x, y, z = seen.T
    turned = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1)
    shifted = jnp.broadcast_to(-jnp.eye(3), by_place.shape)
    columns = [turned.reshape(-1, 3, 3), shifted, by_code]
    if with_identity:
        rest = jax.jacfwd(lambda g: _canonical(params, cfg, landmarks, g))(head.geo)
        read = jax.jacfwd(lambda g: condition_of(params, cfg, g, head.exp))(head.geo)
        columns.append(inverse @ (rest - by_condition @ read))
    jacobian = jnp.concatenate(columns, axis=-1)  # [L, 3, N]
    jacobian = jnp.einsum("ij,ljn->lin", rotation_matrix(head.pose[:3]).T, jacobian)
    _, across, _ = frame
    views = len(across) // len(places)
    jacobian = across @ jnp.tile(jacobian, (views, 1, 1))
    return Linear(values, weights, jacobian.reshape(len(values), -1))
