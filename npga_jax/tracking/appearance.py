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

from npga_jax.core import Params
from npga_jax.nphm import NPHMConfig, apply_deformation

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


class Appearance(NamedTuple):
    """What a fit needs beside geometry."""

    texture: Texture
    channels: jax.Array  # [T, P, C] of the observed points
    noise: jax.Array | float  # that counts as much as a deviation of a code


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


def canonical_channels(
    params: Params, texture: Texture, points: jax.Array, condition: jax.Array
) -> jax.Array:
    """Channels of where points in the model's frame come from: [P, 3], [C] -> [P, 3].

    Args:
      condition: of the deformation, see `model.deformation_condition`; [P, ...] gives
        every point one of its own.
    """
    condition = jnp.broadcast_to(condition, (points.shape[0], condition.shape[-1]))
    layers = params["deformation"]["layers"]
    offset = apply_deformation(layers, points[:, None], condition)[:, 0, :3]
    return sample_texture(texture, points + offset)


def color_residuals(
    params: Params,
    cfg: NPHMConfig,
    texture: Texture,
    points: jax.Array,  # [P, 3] in the model's frame
    condition: jax.Array,  # of the deformation
    observed: jax.Array,  # [P, C]
) -> tuple[jax.Array, jax.Array]:
    """Differences from the observed channels [C, P], and their Jacobian [C, P, 6 + E].

    The columns are those of `residuals.expression_residuals`.
    """
    own = jnp.broadcast_to(condition, (points.shape[0], condition.shape[-1]))

    def one(channel):
        def total(x, own):
            values = canonical_channels(params, texture, x, own)[:, channel]
            return jnp.sum(values), values

        (by_point, by_condition), values = jax.grad(
            total, argnums=(0, 1), has_aux=True
        )(points, own)
        by_exp = by_condition[:, -cfg.lat_dim_exp :]
        by_pose = jnp.concatenate([jnp.cross(points, by_point), by_point], axis=-1)
        jacobian = jnp.concatenate([by_pose, by_exp], axis=-1)
        return values - observed[:, channel], jacobian

    residuals, jacobians = zip(*(one(c) for c in range(NUM_CHANNELS)), strict=True)
    return jnp.stack(residuals), jnp.stack(jacobians)


def color_weights(residual: jax.Array, weights: jax.Array) -> jax.Array:
    """Weights of iteratively reweighted least squares: [C, P], [P] -> [C, P]."""
    return weights * (_ROBUST**2 / (_ROBUST**2 + residual**2)) ** 2


def color_cost(residual: jax.Array, weights: jax.Array) -> jax.Array:
    """Sum of Geman-McClure's losses: [C, P], [P] -> []."""
    squared = residual**2
    return jnp.sum(weights * _ROBUST**2 * squared / (_ROBUST**2 + squared))
