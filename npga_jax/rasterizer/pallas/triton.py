"""GPU kernels, by Triton: a program per tile loops over that tile's chunks.

Triton knows powers of two only, and matrix products from 16 x 16 on.
"""

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
"""Gaussians of a chunk: the fewest that a matrix product takes."""

_running_sum = partial(jnp.cumsum, axis=1)

_COMPILER_PARAMS = plgpu.CompilerParams(num_warps=8, num_stages=1)


def pad_channels(num_channels: int) -> int:
    """A power of two, 16 or more."""
    return max(16, 1 << (num_channels - 1).bit_length())


def _load_chunk(rows_ref, k, tile, *, channels, chunk, tile_size, tile_width):
    """Geometry relative to the tile, and colours [F, G] of chunk k."""
    slots = pl.ds(k * chunk, chunk)
    mx, my, *rest = (rows_ref[i, slots][None, :] for i in range(6))
    x, y = tile_middle(tile, tile_size, tile_width, rows_ref.dtype)
    colors = rows_ref[pl.ds(GEOMETRY_ROWS, channels), slots]
    return Geometry(mx - x, my - y, *rest), colors


def _unfinished(end, k, light):
    return (k < end) & (jnp.max(light) > 0)


def _forward_kernel(filled_ref, starts_ref, rows_ref, image_ref, *, chunk, **tiling):
    channels, num_pixels = image_ref.shape[1:]
    tile = pl.program_id(0)
    start = starts_ref[tile]
    # The only chunk of a tile without Gaussians is not filled.
    end = jnp.where(filled_ref[start] == 1, starts_ref[tile + 1], start)

    def add(state):
        k, light, image = state
        geometry, colors = _load_chunk(
            rows_ref, k, tile, channels=channels, chunk=chunk, **tiling
        )
        light, shown = forward_chunk(
            light,
            geometry,
            colors,
            tile_size=tiling["tile_size"],
            running_sum=_running_sum,
        )
        return k + 1, light, image + shown

    light = jnp.ones((num_pixels, 1), rows_ref.dtype)
    image = jnp.zeros((channels, num_pixels), rows_ref.dtype)
    image_ref[0] = jax.lax.while_loop(
        lambda state: _unfinished(end, *state[:2]), add, (start, light, image)
    )[2]


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
    **tiling,
):
    channels, num_pixels = grads_ref.shape[1:]
    tile = pl.program_id(0)
    start = starts_ref[tile]
    end = jnp.where(filled_ref[start] == 1, starts_ref[tile + 1], start)
    grads = grads_ref[0]
    tile_size = tiling["tile_size"]

    def store(k, by_geometry, by_color):
        slots = pl.ds(k * chunk, chunk)
        for i, row in enumerate(by_geometry):
            out_ref[i, slots] = row
        out_ref[pl.ds(GEOMETRY_ROWS, channels), slots] = by_color

    def add(state):
        k, light, behind = state
        geometry, colors = _load_chunk(
            rows_ref, k, tile, channels=channels, chunk=chunk, **tiling
        )
        light, behind, by_geometry, by_color = backward_chunk(
            light,
            behind,
            geometry,
            colors,
            grads,
            tile_size=tile_size,
            running_sum=_running_sum,
            moments=partial(_sums_over_pixels, tile_size=tile_size),
        )
        store(k, [jnp.squeeze(x, 0) for x in by_geometry], by_color)
        return k + 1, light, behind

    light = jnp.ones((num_pixels, 1), rows_ref.dtype)
    k, _, _ = jax.lax.while_loop(
        lambda state: _unfinished(end, *state[:2]),
        add,
        (start, light, behind_ref[0, 0][:, None]),
    )

    def skip(k, carry):
        zeros = jnp.zeros((chunk,), rows_ref.dtype)
        store(k, [zeros] * 6, jnp.zeros((channels, chunk), rows_ref.dtype))
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
        compiler_params=_COMPILER_PARAMS,
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
        compiler_params=_COMPILER_PARAMS,
        interpret=interpret,
        name="composite_backward",
    )(chunks.filled, chunks.starts, rows, grads, behind[:, None])
