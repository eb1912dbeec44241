"""What the kernels compute for one chunk: G Gaussians at the P pixels of a tile.

Arrays are [P, G]: pixels down, Gaussians along. The light before and behind every
Gaussian follows from running sums of log(1 - alpha), so that nothing in a chunk is
sequential. The model and the backward pass are those of `compositing`, the twin.

Drivers do what depends on the channels, and pass the sums that they can do best:
`running_sum`, inclusive along G, and `moments` over the pixels.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.rasterizer.compositing import (
    MAX_ALPHA,
    TRANSMITTANCE_THRESHOLD,
    alphas,
    geometry_gradients,
)


class Geometry(NamedTuple):
    """Of the Gaussians of a chunk, [1, G] each."""

    mx: jax.Array  # Pixels, relative to the middle of the tile
    my: jax.Array
    a: jax.Array  # The conic, 1 / pixels^2
    b: jax.Array
    c: jax.Array
    log_opacity: jax.Array  # -inf where there is no Gaussian


class Moments(NamedTuple):
    """Sums over pixels of a gradient times 1, x, y, x^2, xy and y^2, [1, G] each."""

    one: jax.Array
    x: jax.Array
    y: jax.Array
    xx: jax.Array
    xy: jax.Array
    yy: jax.Array


class _Absorbed(NamedTuple):
    before: jax.Array  # [P, G] light that reaches each Gaussian
    weight: jax.Array  # [P, G] share of each Gaussian in each pixel
    active: jax.Array  # [P, G] bool, false from where a pixel is finished
    after: jax.Array  # [P, 1] light behind the chunk, 0 once a pixel is finished


def pixel_offsets(tile_size: int, dtype) -> tuple[jax.Array, jax.Array]:
    """Pixel centres of a tile relative to its middle, [P, 1] each."""
    index = jax.lax.broadcasted_iota(jnp.int32, (tile_size * tile_size, 1), 0)
    y = jax.lax.div(index, jnp.int32(tile_size))
    x = index - y * tile_size
    middle = 0.5 - tile_size / 2
    return x.astype(dtype) + middle, y.astype(dtype) + middle


def monomials(tile_size: int, dtype) -> jax.Array:
    """1, x, y, x^2, xy, y^2 of the pixels and two rows of zeros, [8, P]."""
    x, y = (v[:, 0] for v in pixel_offsets(tile_size, dtype))
    zero = jnp.zeros_like(x)
    return jnp.stack([jnp.ones_like(x), x, y, x * x, x * y, y * y, zero, zero])


def tile_middle(tile, tile_size: int, tile_width: int, dtype):
    """Pixel coordinates of the middle of a tile."""
    row = jax.lax.div(tile, jnp.int32(tile_width))
    column = tile - row * tile_width
    half = tile_size / 2
    return (
        (column * tile_size).astype(dtype) + half,
        (row * tile_size).astype(dtype) + half,
    )


def _absorb(light, alpha, running_sum: Callable) -> _Absorbed:
    log_kept = jnp.log1p(-alpha)
    total = running_sum(log_kept)
    after = light * jnp.exp(total)
    before = light * jnp.exp(total - log_kept)
    # Light only falls, so a pixel that is finished stays so.
    active = after > TRANSMITTANCE_THRESHOLD
    weight = jnp.where(active, before * alpha, 0.0)
    left = jnp.min(jnp.where(active, after, 0.0), axis=1)
    return _Absorbed(before, weight, active, left[:, None])


def forward_chunk(
    light: jax.Array,  # [P, 1] light that reaches the chunk
    geometry: Geometry,
    *,
    tile_size: int,
    running_sum: Callable,
) -> tuple[jax.Array, jax.Array]:
    """Light behind the chunk [P, 1], and each Gaussian's share in a pixel [P, G]."""
    px, py = pixel_offsets(tile_size, light.dtype)
    absorbed = _absorb(light, alphas(geometry, px, py), running_sum)
    return absorbed.after, absorbed.weight


def backward_chunk(
    light: jax.Array,  # [P, 1] light that reaches the chunk
    behind: jax.Array,  # [P, 1] <image, gradient> of what is not yet walked over
    geometry: Geometry,
    shade: jax.Array,  # [P, G] <colour, gradient>
    *,
    tile_size: int,
    running_sum: Callable,
    moments: Callable,
):
    """The same walk, front to back; see `compositing` for the formula.

    Returns:
      `light` and `behind` for the next chunk, the gradients by geometry, 6 x [1, G],
      and each Gaussian's share in a pixel [P, G].
    """
    px, py = pixel_offsets(tile_size, light.dtype)
    alpha = alphas(geometry, px, py)
    absorbed = _absorb(light, alpha, running_sum)
    shown = absorbed.weight * shade
    rest = behind - running_sum(shown)
    grad_alpha = absorbed.before * shade - rest / (1.0 - alpha)
    moving = absorbed.active & (alpha < MAX_ALPHA)
    grad_power = jnp.where(moving, grad_alpha * alpha, 0.0)
    by_geometry = geometry_gradients(geometry, moments(grad_power))
    behind = behind - jnp.sum(shown, axis=1)[:, None]
    return absorbed.after, behind, by_geometry, absorbed.weight
