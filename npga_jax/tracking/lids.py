"""Whether eyes are open: what distances to a surface cannot say.

The surface of an eyeball lies a millimetre behind that of a shut lid, so a fit by
distances leaves eyes open. But what is seen there is skin or eye. Where the eyes'
openings lie in canonical space is learned from the most neutral frames; from then on
skin may not come from within them, nor an eye's point from without.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from npga_jax.nphm import MILLIMETRES_PER_UNIT
from npga_jax.tracking.residuals import apply_pose, pose_jacobian
from npga_jax.tracking.terms import (
    Head,
    Linear,
    Term,
    canonical_gradient,
    canonical_places,
    condition_of,
)

ndimage: Any = scipy.ndimage  # Types of what it returns are not known.

_CELL = 0.5 / MILLIMETRES_PER_UNIT
_BLUR = 0.8 / MILLIMETRES_PER_UNIT
_LEAST_DENSITY = 0.02
"""Of points of eyes, of the densest place's, below which there is no opening."""
_MARGIN = 12.0 / MILLIMETRES_PER_UNIT
"""Around the openings, in every direction, to which skin is looked at."""
_SLACK = 0.3 / MILLIMETRES_PER_UNIT
"""By which a point may be on the wrong side of a rim."""
_SCALE = 10.0 / MILLIMETRES_PER_UNIT
"""A shut lid is half an opening's height off."""
_FEWEST_POINTS = 40
_BY_LOWER = 3.0
"""How much farther the lower rim counts than the upper one: what covers an eye is the
upper lid, and the fold of skin that is in the middle of an opening belongs to it."""


class Openings(NamedTuple):
    """Where canonical space, seen from the front, has the openings of the eyes."""

    distance: jax.Array  # [X, Y] NPHM units from the rims; negative within: of the
    # upper rim, save close above the lower one
    origin: jax.Array  # [2] of the first cell's middle
    depth: jax.Array  # [2] nearest and farthest place of eyes along z


def find_openings(places: np.ndarray, is_eye: np.ndarray) -> Openings | None:
    """The openings, from points of frames whose eyes are open.

    Args:
      places: [P, 3] canonical, of skin around the eyes and of eyes.
      is_eye: [P] bool.

    Returns:
      None where too few points are of eyes to tell.
    """
    if is_eye.sum() < _FEWEST_POINTS:
        return None
    eyes = places[is_eye]
    low = eyes[:, :2].min(axis=0) - 2 * _MARGIN
    shape = ((np.ptp(eyes[:, :2], axis=0) + 4 * _MARGIN) / _CELL).astype(int) + 1

    def density(points: np.ndarray) -> np.ndarray:
        index = np.round((points[:, :2] - low) / _CELL).astype(int)
        index = index[((index >= 0) & (index < shape)).all(axis=1)]
        count = np.zeros(shape, np.float32)
        np.add.at(count, tuple(index.T), 1.0)
        return ndimage.gaussian_filter(count, _BLUR / _CELL)

    of_eyes, of_skin = density(eyes), density(places[~is_eye])
    within = (of_eyes > of_skin) & (of_eyes > _LEAST_DENSITY * of_eyes.max())
    within = ndimage.binary_fill_holes(within)
    outside = ndimage.distance_transform_edt(~within)
    inside = np.minimum(_depth(within), _BY_LOWER * _depth(within[:, ::-1])[:, ::-1])
    distance = ndimage.gaussian_filter((outside - inside) * _CELL, 1.0)
    near, far = np.quantile(eyes[:, 2], [0.02, 0.98])
    depth = (near - _MARGIN, far + _MARGIN)
    return Openings(*(jnp.asarray(x, jnp.float32) for x in (distance, low, depth)))


def _depth(within: np.ndarray) -> np.ndarray:
    """How many cells it is to the upper end of a column of cells that are within."""
    depth, count = np.zeros(within.shape), np.zeros(len(within))
    for row in reversed(range(within.shape[1])):
        count = np.where(within[:, row], count + 1, 0)
        depth[:, row] = count
    return depth


def distance_to_rim(openings: Openings, places: jax.Array) -> jax.Array:
    """Signed distances, seen from the front, see `Openings`: [P, 3] -> [P]."""
    at = ((places[:, :2] - openings.origin) / _CELL).T
    return jax.scipy.ndimage.map_coordinates(
        openings.distance, list(at), order=1, mode="nearest"
    )


def about_openings(openings: Openings, places: jax.Array) -> jax.Array:
    """Which canonical places are near enough to be looked at: [P, 3] -> [P] bool."""
    near = distance_to_rim(openings, places) < _MARGIN
    depth = places[:, 2]
    return near & (depth > openings.depth[0]) & (depth < openings.depth[1])


def lid_term(
    openings: Openings,
    points: np.ndarray,  # [T, Q, 3] near the model's frame
    is_eye: np.ndarray,  # [T, Q] bool
    weights: np.ndarray,  # [T, Q] 0 for padding and for what is far from the eyes
    noise: float,  # NPHM units
) -> Term:
    """Holds skin outside the openings and eyes within."""
    side = np.where(is_eye, -1.0, 1.0)
    frames = tuple(jnp.asarray(x, jnp.float32) for x in (points, side, weights))
    return Term(
        frames=frames,
        shared=openings,
        noise=jnp.float32(noise),
        scale=jnp.float32(_SCALE),
        evaluate=_evaluate,
        linearize=_linearize,
    )


def _beyond(openings: Openings, places: jax.Array, side: jax.Array) -> jax.Array:
    """How far places are on the wrong side of a rim: [P]."""
    return jnp.maximum(-side * distance_to_rim(openings, places) - _SLACK, 0.0)


def _evaluate(params, cfg, openings, frame, head: Head, _):
    points, side, weights = frame
    condition = condition_of(params, cfg, head.geo, head.exp)
    places = canonical_places(params, apply_pose(head.pose, points), condition)
    return _beyond(openings, places, side), weights


def _linearize(params, cfg, openings, frame, head: Head, _, with_identity):
    if with_identity:
        raise TypeError("openings are known once the identity is")
    points, side, weights = frame
    moved = apply_pose(head.pose, points)
    condition = condition_of(params, cfg, head.geo, head.exp)
    values, by_point, by_condition = canonical_gradient(
        params, cfg, lambda places: _beyond(openings, places, side), moved, condition
    )
    by_exp = by_condition[:, -cfg.lat_dim_exp :]
    jacobian = jnp.concatenate([pose_jacobian(moved, by_point), by_exp], axis=-1)
    return Linear(values, weights, jacobian)
