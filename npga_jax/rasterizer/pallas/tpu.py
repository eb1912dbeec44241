"""TPU kernels: the grid walks over all chunks in turn, a tile's state stays in VMEM.

The blocks of a tile's image are revisited by its chunks, which follow each other.
Running sums and sums over pixels are matrix products.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from npga_jax.rasterizer.pallas.blending import (
    Geometry,
    Moments,
    backward_chunk,
    forward_chunk,
    monomials,
    tile_middle,
)
from npga_jax.rasterizer.pallas.layout import GEOMETRY_ROWS, ChunkLists

_dot = partial(jax.lax.dot_general, precision=jax.lax.Precision.HIGHEST)
"""Exact to float32; the hardware would otherwise round the factors."""

_ROWS_BY_COLUMNS = (((1,), (0,)), ((), ()))
_ROWS_BY_ROWS = (((1,), (1,)), ((), ()))
_COLUMNS_BY_COLUMNS = (((0,), (0,)), ((), ()))

CHUNK = 128
"""Gaussians of a chunk: the lanes of a vector."""


def pad_channels(num_channels: int) -> int:
    """Whole registers of 8 rows."""
    return -(-num_channels // 8) * 8


def _running_sum(x):
    """Inclusive sum along the last axis, as a product with a triangle of ones."""
    shape = (x.shape[1],) * 2
    row = jax.lax.broadcasted_iota(jnp.int32, shape, 0)
    column = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return _dot(x, (row <= column).astype(x.dtype), _ROWS_BY_COLUMNS)


def _geometry(rows_ref, tile, tile_size, tile_width):
    mx, my, *rest = (rows_ref[i : i + 1, :] for i in range(6))
    x, y = tile_middle(tile, tile_size, tile_width, rows_ref.dtype)
    return Geometry(mx - x, my - y, *rest)


def _is_first(tiles_ref):
    k = pl.program_id(0)
    return (k == 0) | (tiles_ref[jnp.maximum(k - 1, 0)] != tiles_ref[k])


def _forward_kernel(
    tiles_ref, filled_ref, rows_ref, image_ref, light_ref, *, tile_size, tile_width
):
    k = pl.program_id(0)

    @pl.when(_is_first(tiles_ref))
    def _start():
        light_ref[...] = jnp.ones_like(light_ref)
        image_ref[...] = jnp.zeros_like(image_ref)

    @pl.when((filled_ref[k] == 1) & (jnp.max(light_ref[...]) > 0))
    def _add():
        light_ref[...], weight = forward_chunk(
            light_ref[...],
            _geometry(rows_ref, tiles_ref[k], tile_size, tile_width),
            tile_size=tile_size,
            running_sum=_running_sum,
        )
        image_ref[0] += _dot(rows_ref[GEOMETRY_ROWS:, :], weight, _ROWS_BY_ROWS)


def _backward_kernel(
    tiles_ref,
    filled_ref,
    rows_ref,
    grads_ref,
    behind_start_ref,
    monomials_ref,
    out_ref,
    light_ref,
    behind_ref,
    *,
    tile_size,
    tile_width,
):
    k = pl.program_id(0)

    @pl.when(_is_first(tiles_ref))
    def _start():
        light_ref[...] = jnp.ones_like(light_ref)
        behind_ref[...] = behind_start_ref[0].T

    needed = (filled_ref[k] == 1) & (jnp.max(light_ref[...]) > 0)

    @pl.when(jnp.logical_not(needed))
    def _skip():
        out_ref[...] = jnp.zeros_like(out_ref)

    @pl.when(needed)
    def _add():
        def moments(grad):
            sums = _dot(monomials_ref[...], grad, _ROWS_BY_COLUMNS)
            return Moments(*(sums[i : i + 1, :] for i in range(6)))

        grads, colors = grads_ref[0], rows_ref[GEOMETRY_ROWS:, :]
        light_ref[...], behind_ref[...], by_geometry, weight = backward_chunk(
            light_ref[...],
            behind_ref[...],
            _geometry(rows_ref, tiles_ref[k], tile_size, tile_width),
            _dot(grads, colors, _COLUMNS_BY_COLUMNS),
            tile_size=tile_size,
            running_sum=_running_sum,
            moments=moments,
        )
        out_ref[...] = jnp.zeros_like(out_ref)
        for i, row in enumerate(by_geometry):
            out_ref[i : i + 1, :] = row
        out_ref[GEOMETRY_ROWS:, :] = _dot(grads, weight, _ROWS_BY_COLUMNS)


def _chunk_block(rows, chunk):
    return pl.BlockSpec((rows, chunk), lambda k, tiles, filled: (0, k))


def _tile_block(channels, num_pixels):
    return pl.BlockSpec(
        (1, channels, num_pixels), lambda k, tiles, filled: (tiles[k], 0, 0)
    )


# The walk must keep its order.
_IN_TURN = pltpu.CompilerParams(dimension_semantics=("arbitrary",))


def forward(
    rows: jax.Array,  # [8 + F, K * G]
    chunks: ChunkLists,
    *,
    tile_size: int,
    tile_width: int,
    interpret: bool,
) -> jax.Array:
    """Images of all tiles, [T, F, P]."""
    num_rows, num_slots = rows.shape
    num_chunks, num_tiles = chunks.tiles.shape[0], chunks.starts.shape[0] - 1
    num_pixels, channels = tile_size**2, num_rows - GEOMETRY_ROWS
    return pl.pallas_call(
        partial(_forward_kernel, tile_size=tile_size, tile_width=tile_width),
        out_shape=jax.ShapeDtypeStruct((num_tiles, channels, num_pixels), rows.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(num_chunks,),
            in_specs=[_chunk_block(num_rows, num_slots // num_chunks)],
            out_specs=_tile_block(channels, num_pixels),
            scratch_shapes=[pltpu.VMEM((num_pixels, 1), rows.dtype)],
        ),
        compiler_params=_IN_TURN,
        interpret=interpret,
        name="composite",
    )(chunks.tiles, chunks.filled, rows)


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
    num_rows, num_slots = rows.shape
    num_chunks = chunks.tiles.shape[0]
    num_pixels, channels = tile_size**2, num_rows - GEOMETRY_ROWS
    chunk_block = _chunk_block(num_rows, num_slots // num_chunks)
    return pl.pallas_call(
        partial(_backward_kernel, tile_size=tile_size, tile_width=tile_width),
        out_shape=jax.ShapeDtypeStruct(rows.shape, rows.dtype),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=2,
            grid=(num_chunks,),
            in_specs=[
                chunk_block,
                _tile_block(channels, num_pixels),
                _tile_block(1, num_pixels),
                pl.BlockSpec((8, num_pixels), lambda k, tiles, filled: (0, 0)),
            ],
            out_specs=chunk_block,
            scratch_shapes=[pltpu.VMEM((num_pixels, 1), rows.dtype)] * 2,
        ),
        compiler_params=_IN_TURN,
        interpret=interpret,
        name="composite_backward",
    )(
        chunks.tiles,
        chunks.filled,
        rows,
        grads,
        behind[:, None],
        monomials(tile_size, rows.dtype),
    )
