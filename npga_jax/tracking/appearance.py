"""Colours of the skin in canonical space: what geometry alone cannot see.

Distances to a surface do not notice when skin slides along it. Colours do: the rims
of lips, lids and brows. After a fit by geometry, the colours of the most neutral frames
are gathered in a canonical grid, and all frames are fitted once more so that each point
has the colour of the place it comes from. Light changes with the expression, so that
colours count much less than their own noise would suggest.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.ndimage import gaussian_filter

from npga_jax.tracking.residuals import apply_pose, pose_jacobian
from npga_jax.tracking.terms import (
    Head,
    Linear,
    Term,
    canonical_gradient,
    canonical_places,
    condition_of,
)

NUM_CHANNELS = 3
_LUMINANCE_SCALE = 0.1
"""Of log luminance, which varies most with the light."""
_DARKEST = 0.02
_CELL = 0.006
"""NPHM units (1.5 mm): edge of a cell of the grid."""
_BLUR = 0.005
_MARGIN = 8
_LEAST_DENSITY = 1e-5
_ROBUST = 0.03
"""Channel difference from which on a point counts less (Geman-McClure)."""


class Texture(NamedTuple):
    """Channels on a regular grid in canonical space."""

    values: jax.Array  # [C, X, Y, Z]
    origin: jax.Array  # [3] centre of the first cell, NPHM units


def color_channels(rgb: np.ndarray) -> np.ndarray:
    """Two chromaticities, which shading leaves alone, and log luminance: [..., 3]."""
    total = np.maximum(rgb.sum(axis=-1, keepdims=True), 3 * _DARKEST)
    luminance = _LUMINANCE_SCALE * np.log(total / 3)
    return np.concatenate([rgb[..., :2] / total, luminance], axis=-1).astype(np.float32)


def make_texture(
    points: np.ndarray,  # [P, 3] canonical, NPHM units
    channels: np.ndarray,  # [P, C]
) -> Texture:
    """Averages channels around grid points; far from all points, the overall mean."""
    origin = points.min(axis=0) - _MARGIN * _CELL
    index = np.round((points - origin) / _CELL).astype(int)
    shape = index.max(axis=0) + _MARGIN + 1
    density = np.zeros(shape, np.float32)
    np.add.at(density, tuple(index.T), 1.0)
    density = gaussian_filter(density, _BLUR / _CELL)
    values = []
    for channel in channels.T:
        total = np.zeros(shape, np.float32)
        np.add.at(total, tuple(index.T), channel)
        total = gaussian_filter(total, _BLUR / _CELL)
        total += _LEAST_DENSITY * channel.mean()
        values.append(total / (density + _LEAST_DENSITY))
    return Texture(
        jnp.asarray(np.stack(values), jnp.float32), jnp.asarray(origin, jnp.float32)
    )


def sample_texture(texture: Texture, points: jax.Array) -> jax.Array:
    """Channels at canonical points, trilinear: [P, 3] -> [P, C]."""
    place = ((points - texture.origin) / _CELL).T
    return jnp.stack(
        [
            jax.scipy.ndimage.map_coordinates(v, list(place), order=1, mode="nearest")
            for v in texture.values
        ],
        axis=-1,
    )


def color_term(
    texture: Texture,
    points: jax.Array,  # [T, P, 3] near the model's frame
    channels: jax.Array,  # [T, P, C] observed
    noise: float,
) -> Term:
    """The colours of the observed points, beside their distances."""
    return Term(
        frames=(points, channels),
        shared=texture,
        noise=jnp.float32(noise),
        scale=jnp.float32(_ROBUST),
        evaluate=_evaluate,
        linearize=_linearize,
    )


def _evaluate(params, cfg, texture, frame, head: Head, point_weights):
    points, observed = frame
    condition = condition_of(params, cfg, head.geo, head.exp)
    places = canonical_places(params, apply_pose(head.pose, points), condition)
    values = (sample_texture(texture, places) - observed).T
    return values.reshape(-1), jnp.tile(point_weights, NUM_CHANNELS)


def _linearize(params, cfg, texture, frame, head: Head, point_weights, with_identity):
    """Differences from the observed channels, one channel after the other."""
    if with_identity:
        raise TypeError("colours are compared once the identity is known")
    points, observed = frame
    points = apply_pose(head.pose, points)
    condition = condition_of(params, cfg, head.geo, head.exp)
    values, jacobian = [], []
    for channel in range(NUM_CHANNELS):
        found, by_point, by_condition = canonical_gradient(
            params,
            cfg,
            lambda places, c=channel: sample_texture(texture, places)[:, c],
            points,
            condition,
        )
        values.append(found - observed[:, channel])
        by_pose = pose_jacobian(points, by_point)
        by_exp = by_condition[:, -cfg.lat_dim_exp :]
        jacobian.append(jnp.concatenate([by_pose, by_exp], axis=-1))
    return Linear(
        jnp.concatenate(values),
        jnp.tile(point_weights, NUM_CHANNELS),
        jnp.concatenate(jacobian),
    )
