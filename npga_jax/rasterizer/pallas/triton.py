"""GPU kernels, by Triton: a program per tile loops over that tile's chunks.

Channels are summed one by one: exact matrix products keep whole rows and columns of
their factors in registers, of which there are too few.
"""

import functools
import operator
from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from npga_jax.rasterizer.pallas.blending import (
    Geometry,
    Moments,
    backward_chunk,
    forward_chunk,
    pixel_offsets,
    tile_middle,
)
from npga_jax.rasterizer.pallas.layout import GEOMETRY_ROWS, ChunkLists

CHUNK = 16
"""Gaussians of a chunk, a power of two."""

_running_sum = partial(jnp.cumsum, axis=1)


def _compiler_params(num_pixels: int) -> plgpu.CompilerParams:
    """Four warps for a tile of 8x8 pixels, eight for a larger one: measured."""
    return plgpu.CompilerParams(num_warps=4 if num_pixels <= 64 else 8, num_stages=1)


def pad_channels(num_channels: int) -> int:
    """Any number will do."""
    return num_channels


def _load_geometry(rows_ref, slots, tile, tile_size, tile_width):
    mx, my, *rest = (rows_ref[i, slots][None, :] for i in range(6))
    x, y = tile_middle(tile, tile_size, tile_width, rows_ref.dtype)
    return Geometry(mx - x, my - y, *rest)


def _chunk_range(filled_ref, starts_ref):
    """First and last + 1 chunk of this program's tile."""
    tile = pl.program_id(0)
    start = starts_ref[tile]
    # The only chunk of a tile without Gaussians is not filled.
    return start, jnp.where(filled_ref[start] == 1, starts_ref[tile + 1], start)


def _unfinished(end, k, light):
    return (k < end) & (jnp.max(light) > 0)


def _forward_kernel(
    filled_ref, starts_ref, rows_ref, image_ref, *, chunk, tile_size, tile_width
):
    channels, num_pixels = image_ref.shape[1:]
    tile = pl.program_id(0)
    start, end = _chunk_range(filled_ref, starts_ref)

    def add(state):
        k, light, image = state
        slots = pl.ds(k * chunk, chunk)
        light, weight = forward_chunk(
            light,
            _load_geometry(rows_ref, slots, tile, tile_size, tile_width),
            tile_size=tile_size,
            running_sum=_running_sum,
        )
        image = tuple(
            image[f] + jnp.sum(weight * rows_ref[GEOMETRY_ROWS + f, slots], axis=1)
            for f in range(channels)
        )
        return k + 1, light, image

    light = jnp.ones((num_pixels, 1), rows_ref.dtype)
    image = (jnp.zeros((num_pixels,), rows_ref.dtype),) * channels
    _, _, image = jax.lax.while_loop(
        lambda state: _unfinished(end, *state[:2]), add, (start, light, image)
    )
    for f in range(channels):
        image_ref[0, f, :] = image[f]


def _sums_over_pixels(grad, tile_size):
    px, py = pixel_offsets(tile_size, grad.dtype)

    def total(x):
        return jnp.sum(x, axis=0)[None, :]

    by_x, by_y = grad * px, grad * py
    return Moments(
        total(grad),
        total(by_x),
        total(by_y),
        total(by_x * px),
        total(by_x * py),
        total(by_y * py),
    )


def _backward_kernel(
    filled_ref,
    starts_ref,
    rows_ref,
    grads_ref,
    behind_ref,
    out_ref,
    *,
    chunk,
    tile_size,
    tile_width,
):
    channels, num_pixels = grads_ref.shape[1:]
    tile = pl.program_id(0)
    start, end = _chunk_range(filled_ref, starts_ref)

    def grad(f):
        return grads_ref[0, f, :][:, None]

    def add(state):
        k, light, behind = state
        slots = pl.ds(k * chunk, chunk)
        shades = (grad(f) * rows_ref[GEOMETRY_ROWS + f, slots] for f in range(channels))
        shade = functools.reduce(operator.add, shades)
        light, behind, by_geometry, weight = backward_chunk(
            light,
            behind,
            _load_geometry(rows_ref, slots, tile, tile_size, tile_width),
            shade,
            tile_size=tile_size,
            running_sum=_running_sum,
            moments=partial(_sums_over_pixels, tile_size=tile_size),
        )
        for i, row in enumerate(by_geometry):
            out_ref[i, slots] = jnp.squeeze(row, 0)
        for f in range(channels):
            out_ref[GEOMETRY_ROWS + f, slots] = jnp.sum(weight * grad(f), axis=0)
        return k + 1, light, behind

    light = jnp.ones((num_pixels, 1), rows_ref.dtype)
    k, _, _ = jax.lax.while_loop(
        lambda state: _unfinished(end, *state[:2]),
        add,
        (start, light, behind_ref[0, 0, :][:, None]),
    )

    def skip(k, carry):
        for i in (*range(6), *range(GEOMETRY_ROWS, GEOMETRY_ROWS + channels)):
            out_ref[i, pl.ds(k * chunk, chunk)] = jnp.zeros((chunk,), rows_ref.dtype)
        return carry

    jax.lax.fori_loop(k, end, skip, 0)


def _tile_block(channels, num_pixels):
    return pl.BlockSpec((1, channels, num_pixels), lambda tile: (tile, 0, 0))


def forward(
    rows: jax.Array,  # [8 + F, K * G]
    chunks: ChunkLists,
    *,
    tile_size: int,
    tile_width: int,
    interpret: bool,
) -> jax.Array:
    """Images of all tiles, [T, F, P]."""
    num_tiles, num_pixels = chunks.starts.shape[0] - 1, tile_size**2
    channels = rows.shape[0] - GEOMETRY_ROWS
    whole = pl.BlockSpec()
    return pl.pallas_call(
        partial(
            _forward_kernel,
            chunk=rows.shape[1] // chunks.tiles.shape[0],
            tile_size=tile_size,
            tile_width=tile_width,
        ),
        out_shape=jax.ShapeDtypeStruct((num_tiles, channels, num_pixels), rows.dtype),
        grid=(num_tiles,),
        in_specs=[whole, whole, whole],
        out_specs=_tile_block(channels, num_pixels),
        compiler_params=_compiler_params(num_pixels),
        interpret=interpret,
        name="composite",
    )(chunks.filled, chunks.starts, rows)


def backward(
    rows: jax.Array,  # [8 + F, K * G]
    chunks: ChunkLists,
    grads: jax.Array,  # [T, F, P] gradient of the images
    behind: jax.Array,  # [T, P] <image, gradient>
    *,
    tile_size: int,
    tile_width: int,
    interpret: bool,
) -> jax.Array:
    """Gradients by rows, [8 + F, K * G]; arbitrary where there is no Gaussian."""
    num_tiles, channels, num_pixels = grads.shape
    whole = pl.BlockSpec()
    return pl.pallas_call(
        partial(
            _backward_kernel,
            chunk=rows.shape[1] // chunks.tiles.shape[0],
            tile_size=tile_size,
            tile_width=tile_width,
        ),
        out_shape=jax.ShapeDtypeStruct(rows.shape, rows.dtype),
        grid=(num_tiles,),
        in_specs=[
            whole,
            whole,
            whole,
            _tile_block(channels, num_pixels),
            _tile_block(1, num_pixels),
        ],
        out_specs=whole,
        compiler_params=_compiler_params(num_pixels),
        interpret=interpret,
        name="composite_backward",
    )(chunks.filled, chunks.starts, rows, grads, behind[:, None])
