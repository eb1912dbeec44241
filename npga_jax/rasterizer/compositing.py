"""Front-to-back compositing of tile lists, with a hand-written gradient.

Tiles are sorted by how full they are and worked off in groups of `group` tiles; a group
walks its lists in chunks of `chunk` Gaussians and stops when its longest list ends or
all its pixels are opaque. Nothing is padded to the fullest tile of the image. Within a
chunk arrays are laid out [chunk, group, pixel]: the pixel axis is the vector axis.

The backward pass walks front to back again. With R_i the part of the image behind
Gaussian i, dL/dalpha_i = T_i <c_i, g> - R_i / (1 - alpha_i), and R_i follows from the
finished image by subtraction, so nothing but image and transmittance is stored.
Source of the model: Kerbl et al. 2023 (3D Gaussian splatting), gsplat's conventions.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.rasterizer.projection import ALPHA_THRESHOLD
from npga_jax.rasterizer.tiles import TileLists, index_bits

MAX_ALPHA = 0.999
"""As in gsplat 1.5."""

TRANSMITTANCE_THRESHOLD = 1e-4
"""A pixel is finished before the Gaussian that would leave less light than this."""

UNROLLED_CHANNELS = 8
"""Up to here channels are summed one by one; beyond, by matrix products."""


# Accelerators would otherwise round the factors to fewer bits.
_dot = partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)
_einsum = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Blocking(NamedTuple):
    """Static sizes of the work, per platform."""

    tile_size: int = 8
    chunk: int = 16
    group: int = 64


class _Work(NamedTuple):
    """Tiles in groups, fullest first."""

    tiles: jax.Array  # [groups, group] tile index; num_tiles for padding
    starts: jax.Array  # [groups, group]
    ends: jax.Array  # [groups, group]


def _plan(lists: TileLists, num_tiles: int, blocking: Blocking) -> _Work:
    offsets = lists.isect_offsets
    counts = offsets[1:] - offsets[:-1]
    bits = index_bits(num_tiles)
    ceiling = jnp.uint32((1 << (32 - bits)) - 1)
    fullness = ceiling - jnp.minimum(counts.astype(jnp.uint32), ceiling)
    keys = jnp.sort((fullness << bits) | jnp.arange(num_tiles, dtype=jnp.uint32))
    tiles = (keys & jnp.uint32((1 << bits) - 1)).astype(jnp.int32)
    num_groups = -(-num_tiles // blocking.group)
    padding = num_groups * blocking.group - num_tiles
    tiles = jnp.concatenate([tiles, jnp.full(padding, num_tiles, jnp.int32)])
    tiles = tiles.reshape(num_groups, blocking.group)
    padded = jnp.concatenate([offsets, offsets[-1:]])
    return _Work(tiles, padded[tiles], padded[tiles + 1])


def _pixel_offsets(tile_size: int) -> tuple[jax.Array, jax.Array]:
    """Pixel centres of a tile relative to its middle, [P] each."""
    centres = jnp.arange(tile_size, dtype=jnp.float32) + (0.5 - tile_size / 2)
    y, x = jnp.meshgrid(centres, centres, indexing="ij")
    return x.ravel(), y.ravel()


def _chunk_rows(k, table, lists, starts, ends, tiles, tile_width, blocking):
    """Rows of each list's k-th chunk, relative to the tile: 6 x [G, B], [G, B, F]."""
    slot = starts + k * blocking.chunk + jnp.arange(blocking.chunk)[:, None]  # [G, B]
    live = slot < ends
    ids = lists.flatten_ids[jnp.minimum(slot, lists.flatten_ids.shape[0] - 1)]
    rows = table[ids]  # [G, B, 6 + F]
    mx, my, a, b, c, log_opacity = (rows[..., i] for i in range(6))
    half = blocking.tile_size / 2
    mx = mx - ((tiles % tile_width) * blocking.tile_size + half)
    my = my - ((tiles // tile_width) * blocking.tile_size + half)
    log_opacity = jnp.where(live, log_opacity, -jnp.inf)
    return ids, live, (mx, my, a, b, c, log_opacity), rows[..., 6:]


def alphas(geometry, px, py):
    """Opacity of each Gaussian at each pixel; below the threshold 0.

    Args:
      geometry: mx, my, the conic's a, b, c, and log opacity, along one axis.
      px: pixel centres along another axis, in the units and the frame of mx.
      py: likewise.
    """
    mx, my, a, b, c, log_opacity = geometry
    dx, dy = px - mx, py - my
    power = log_opacity - (0.5 * a * dx + b * dy) * dx - 0.5 * c * dy * dy
    alpha = jnp.exp(jnp.minimum(power, log_opacity))
    return jnp.where(alpha >= ALPHA_THRESHOLD, jnp.minimum(alpha, MAX_ALPHA), 0.0)


def geometry_gradients(geometry, moments):
    """Gradients by mx, my, a, b, c and log opacity.

    Args:
      geometry: as in `alphas`.
      moments: sums over the pixels of the gradient by log alpha, times 1, px, py, px^2,
        px * py and py^2.
    """
    mx, my, a, b, c, _ = geometry
    m0, m1, m2, m3, m4, m5 = moments
    # Moments about the Gaussian's centre.
    sx, sy = m1 - mx * m0, m2 - my * m0
    sxx = m3 - 2 * mx * m1 + mx * mx * m0
    sxy = m4 - mx * m2 - my * m1 + mx * my * m0
    syy = m5 - 2 * my * m2 + my * my * m0
    return a * sx + b * sy, b * sx + c * sy, -0.5 * sxx, -sxy, -0.5 * syy, m0


def _absorb(transmittance, alpha):
    """One Gaussian's step: transmittance (0 once finished), weight, and activity."""
    weight = transmittance * alpha
    after = transmittance - weight
    active = after > TRANSMITTANCE_THRESHOLD
    return jnp.where(active, after, 0.0), jnp.where(active, weight, 0.0), active


def _num_chunks(starts, ends, blocking):
    return (jnp.max(ends - starts) + blocking.chunk - 1) // blocking.chunk


def _forward_group(work, *, table, lists, tile_width, num_channels, blocking):
    px, py = _pixel_offsets(blocking.tile_size)
    num_pixels = px.shape[0]
    tiles, starts, ends = work

    def one_chunk(state):
        k, transmittance, total, colors = state
        _, _, geometry, rows = _chunk_rows(
            k, table, lists, starts, ends, tiles, tile_width, blocking
        )
        alpha = jax.lax.optimization_barrier(
            alphas((x[..., None] for x in geometry), px, py)
        )
        if num_channels <= UNROLLED_CHANNELS:
            for g in range(blocking.chunk):
                transmittance, weight = _absorb(transmittance, alpha[g])[:2]
                colors = tuple(
                    colors[f] + weight * rows[g, :, f, None]
                    for f in range(num_channels)
                )
                total = total + weight
        else:
            transmittance, weights = jax.lax.scan(
                lambda t, a: _absorb(t, a)[:2], transmittance, alpha
            )
            colors = colors + _einsum("gbp,gbf->bpf", weights, rows)
            total = total + jnp.sum(weights, axis=0)
        return k + 1, transmittance, total, colors

    def unfinished(state):
        k, transmittance = state[:2]
        return (k < _num_chunks(starts, ends, blocking)) & jnp.any(transmittance > 0)

    shape = (blocking.group, num_pixels)
    if num_channels <= UNROLLED_CHANNELS:
        colors = (jnp.zeros(shape, table.dtype),) * num_channels
    else:
        colors = jnp.zeros((*shape, num_channels), table.dtype)
    ones, zeros = jnp.ones(shape, table.dtype), jnp.zeros(shape, table.dtype)
    state = (jnp.int32(0), ones, zeros, colors)
    num_chunks, _, total, colors = jax.lax.while_loop(unfinished, one_chunk, state)
    if num_channels <= UNROLLED_CHANNELS:
        colors = jnp.stack(colors, axis=-1)
    return colors, 1.0 - total, num_chunks


def _backward_group(
    grad_table, work, *, table, lists, tile_width, num_channels, blocking
):
    """Adds one group's gradients [N, 6 + F] to `grad_table`."""
    px, py = _pixel_offsets(blocking.tile_size)
    (tiles, starts, ends), num_chunks, colors, final_t, grad_colors, grad_t = work
    monomials = jnp.stack([jnp.ones_like(px), px, py, px * px, px * py, py * py], -1)
    remaining = jnp.sum(colors * grad_colors, axis=-1) + final_t * grad_t
    # [F, B, P]: the pixel axis must stay the vector axis.
    grads = jnp.moveaxis(grad_colors, -1, 0)

    def one_chunk(k, state):
        transmittance, behind, grad_table = state
        ids, live, geometry, rows = _chunk_rows(
            k, table, lists, starts, ends, tiles, tile_width, blocking
        )
        alpha = jax.lax.optimization_barrier(
            alphas((x[..., None] for x in geometry), px, py)
        )
        if num_channels <= UNROLLED_CHANNELS:
            shade = sum(rows[..., f, None] * grads[f] for f in range(num_channels))
        else:
            shade = _einsum("gbf,fbp->gbp", rows, grads)

        def step(carry, inputs):
            t, r = carry
            a, s = inputs
            after, weight, active = _absorb(t, a)
            r = r - weight * s
            grad_alpha = t * s - r / (1.0 - a)
            live = active & (a < MAX_ALPHA)
            return (after, r), (weight, jnp.where(live, grad_alpha * a, 0.0))

        (transmittance, behind), (weights, grad_power) = jax.lax.scan(
            step, (transmittance, behind), (alpha, shade)
        )
        shape = (blocking.chunk * blocking.group, px.shape[0])
        moments = jnp.moveaxis(
            _dot(grad_power.reshape(shape), monomials).reshape(*ids.shape, 6),
            -1,
            0,
        )
        columns = list(geometry_gradients(geometry, moments))
        if num_channels <= UNROLLED_CHANNELS:
            ones = jnp.ones_like(px)
            columns += [
                _dot((weights * grads[f]).reshape(shape), ones).reshape(ids.shape)
                for f in range(num_channels)
            ]
            update = jnp.stack(columns, axis=-1)
        else:
            update = jnp.concatenate(
                [
                    jnp.stack(columns, axis=-1),
                    _einsum("gbp,fbp->gbf", weights, grads),
                ],
                axis=-1,
            )
        target = jnp.where(live, ids, table.shape[0])
        grad_table = grad_table.at[target].add(update, mode="drop")
        return transmittance, behind, grad_table

    state = (jnp.ones_like(final_t), remaining, grad_table)
    return jax.lax.fori_loop(0, num_chunks, one_chunk, state)[2]


def _to_image(values, tiles, width, height, blocking):
    """[groups, B, P, ...] per tile to an image [H, W, ...]."""
    size = blocking.tile_size
    tile_width, tile_height = -(-width // size), -(-height // size)
    trailing = values.shape[3:]
    flat = values.reshape(-1, *values.shape[2:])
    out = jnp.zeros((tile_width * tile_height, *flat.shape[1:]), values.dtype)
    out = out.at[tiles.ravel()].set(flat, mode="drop")
    out = out.reshape(tile_height, tile_width, size, size, *trailing)
    out = jnp.swapaxes(out, 1, 2)
    out = out.reshape(tile_height * size, tile_width * size, *trailing)
    return out[:height, :width]


def _from_image(image, tiles, blocking):
    """An image [H, W, ...] to [groups, B, P, ...]; pixels beyond the border are 0."""
    size = blocking.tile_size
    height, width = image.shape[:2]
    trailing = image.shape[2:]
    tile_width, tile_height = -(-width // size), -(-height // size)
    padding = [(0, tile_height * size - height), (0, tile_width * size - width)]
    image = jnp.pad(image, padding + [(0, 0)] * len(trailing))
    image = image.reshape(tile_height, size, tile_width, size, *trailing)
    image = jnp.swapaxes(image, 1, 2).reshape(-1, size * size, *trailing)
    return jnp.take(image, tiles, axis=0, mode="fill", fill_value=0)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _composite(table, lists, width, height, blocking):
    return _composite_fwd(table, lists, width, height, blocking)[0]


def _composite_fwd(table, lists, width, height, blocking):
    size = blocking.tile_size
    tile_width, tile_height = -(-width // size), -(-height // size)
    work = _plan(lists, tile_width * tile_height, blocking)
    colors, transmittance, num_chunks = jax.lax.map(
        partial(
            _forward_group,
            table=table,
            lists=lists,
            tile_width=tile_width,
            num_channels=table.shape[1] - 6,
            blocking=blocking,
        ),
        work,
    )
    out = (
        _to_image(colors, work.tiles, width, height, blocking),
        _to_image(transmittance, work.tiles, width, height, blocking),
    )
    return out, (table, lists, work, num_chunks, colors, transmittance)


def _composite_bwd(width, height, blocking, residuals, cotangents):
    table, lists, work, num_chunks, colors, transmittance = residuals
    grad_colors = _from_image(cotangents[0], work.tiles, blocking)
    grad_t = _from_image(cotangents[1], work.tiles, blocking)
    tile_width = -(-width // blocking.tile_size)
    add_group = partial(
        _backward_group,
        table=table,
        lists=lists,
        tile_width=tile_width,
        num_channels=table.shape[1] - 6,
        blocking=blocking,
    )
    grad_table, _ = jax.lax.scan(
        lambda total, group: (add_group(total, group), None),
        jnp.zeros_like(table),
        (work, num_chunks, colors, transmittance, grad_colors, grad_t),
    )
    return grad_table, None


_composite.defvjp(_composite_fwd, _composite_bwd)


def log_opacities(opacities: jax.Array) -> jax.Array:
    """Logarithms of opacities; finite, with finite gradients, for those of 0."""
    return jnp.log(jnp.maximum(opacities, 1e-12))


def rasterize_to_pixels(
    means2d: jax.Array,  # [N, 2] pixels
    conics: jax.Array,  # [N, 3]
    opacities: jax.Array,  # [N]
    colors: jax.Array,  # [N, F]
    lists: TileLists,
    *,
    width: int,
    height: int,
    blocking: Blocking,
) -> tuple[jax.Array, jax.Array]:
    """Blends the Gaussians of each tile front to back.

    Gradients are exactly zero where alpha is clamped at `MAX_ALPHA` or below 1/255.

    Returns:
      colors [H, W, F] without background, and the transmittance [H, W] that is left.
    """
    log_opacity = log_opacities(opacities)
    table = jnp.concatenate([means2d, conics, log_opacity[:, None], colors], axis=-1)
    return _composite(table, lists, width, height, blocking)
