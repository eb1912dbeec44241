"""Tile lists cut into chunks, and arrays between their XLA and their kernel form.

Every list is padded to whole chunks of `chunk` Gaussians, so that a kernel reads
aligned blocks. The axis that is as long as the lists always comes last: TPUs pad the
last axis to 128 entries.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from npga_jax.rasterizer.compositing import log_opacities
from npga_jax.rasterizer.tiles import TileLists

GEOMETRY_ROWS = 8
"""Rows of a table before the colours: mx, my, a, b, c, log opacity, and two unused."""

_LOG_OPACITY = 5


class ChunkLists(NamedTuple):
    """The Gaussians of all tiles in K chunks of G; a tile has at least one chunk."""

    ids: jax.Array  # [K * G] int32 Gaussian; N where there is none
    tiles: jax.Array  # [K] int32, ascending; the last tile for unused chunks
    filled: jax.Array  # [K] int32, 1 where a chunk holds any Gaussian
    starts: jax.Array  # [T + 1] int32, first chunk of each tile


def num_chunks(max_isects: int, num_tiles: int, chunk: int) -> int:
    """Chunks that suffice for any lists: a tile has at most one that is not full."""
    return max_isects // chunk + num_tiles


def make_chunks(lists: TileLists, num_gaussians: int, chunk: int) -> ChunkLists:
    """Pads the list of each tile to whole chunks."""
    offsets = lists.isect_offsets
    capacity, num_tiles = lists.flatten_ids.shape[0], offsets.shape[0] - 1
    counts = offsets[1:] - offsets[:-1]
    ends = jnp.cumsum(jnp.maximum((counts + chunk - 1) // chunk, 1))
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends]).astype(jnp.int32)

    index = jnp.arange(num_chunks(capacity, num_tiles, chunk), dtype=jnp.int32)
    # A chunk's tile: each tile marks its first chunk, the mark is spread by maximum.
    marks = (
        jnp.zeros_like(index)
        .at[starts[:-1]]
        .set(jnp.arange(num_tiles, dtype=jnp.int32))
    )
    tiles = jax.lax.cummax(marks)
    first = offsets[tiles] + (index - starts[tiles]) * chunk
    slots = first[:, None] + jnp.arange(chunk, dtype=jnp.int32)
    live = slots < offsets[tiles + 1][:, None]
    ids = lists.flatten_ids[jnp.clip(slots, 0, capacity - 1)]
    return ChunkLists(
        ids=jnp.where(live, ids, num_gaussians).ravel(),
        tiles=tiles,
        filled=live[:, 0].astype(jnp.int32),
        starts=starts,
    )


def make_table(means2d, conics, opacities, colors, num_channels: int) -> jax.Array:
    """Columns of all that a kernel knows about a Gaussian, [8 + num_channels, N].

    After the F colours comes a channel of ones, whose image is the coverage; the rest
    is zero.
    """
    n, given = colors.shape
    rows = [means2d.T, conics.T, log_opacities(opacities)[None]]
    rows += [jnp.zeros((GEOMETRY_ROWS - 6, n), colors.dtype), colors.T]
    rows += [jnp.ones((1, n), colors.dtype)]
    rows += [jnp.zeros((num_channels - given - 1, n), colors.dtype)]
    return jnp.concatenate(rows, axis=0)


def gather_columns(table: jax.Array, ids: jax.Array) -> jax.Array:
    """Columns [C, K * G] of the table [C, N]; a Gaussian of no opacity for id N."""
    nobody = jnp.zeros((table.shape[0], 1), table.dtype).at[_LOG_OPACITY].set(-jnp.inf)
    return jnp.concatenate([table, nobody], axis=1).at[:, ids].get(mode="clip")


def add_columns(columns: jax.Array, ids: jax.Array, num_gaussians: int) -> jax.Array:
    """Sums columns [C, K * G] per Gaussian: [C, N]; those of id N are left out."""
    total = jnp.zeros((columns.shape[0], num_gaussians), columns.dtype)
    return total.at[:, ids].add(columns, mode="drop")


def from_tiles(values: jax.Array, width: int, height: int, size: int) -> jax.Array:
    """Tiles [T, F, P] to an image [H, W, F]."""
    tile_width, tile_height = -(-width // size), -(-height // size)
    channels = values.shape[1]
    values = values.reshape(tile_height, tile_width, channels, size, size)
    image = values.transpose(0, 3, 1, 4, 2)
    image = image.reshape(tile_height * size, tile_width * size, channels)
    return image[:height, :width]


def to_tiles(image: jax.Array, size: int) -> jax.Array:
    """An image [H, W, F] to tiles [T, F, P]; pixels beyond the border are 0."""
    height, width, channels = image.shape
    tile_width, tile_height = -(-width // size), -(-height // size)
    padding = (tile_height * size - height, tile_width * size - width)
    image = jnp.pad(image, ((0, padding[0]), (0, padding[1]), (0, 0)))
    image = image.reshape(tile_height, size, tile_width, size, channels)
    return image.transpose(0, 2, 4, 1, 3).reshape(-1, channels, size * size)
