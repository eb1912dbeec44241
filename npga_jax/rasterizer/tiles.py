"""Which Gaussians touch which tiles, front to back.

All sorts are of single uint32 operands with the index packed into the low bits: on
XLA:CPU that is several times faster than an argsort or a sort with a payload, and GPUs
turn it into a radix sort.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class TileLists(NamedTuple):
    """For each tile its Gaussians, front to back."""

    flatten_ids: jax.Array  # [M] int32, Gaussian of each intersection, tile by tile
    isect_offsets: jax.Array  # [T + 1] int32, first intersection of each tile
    num_isects: jax.Array  # [] int32, intersections wanted
    num_dropped: jax.Array  # [] int32, those beyond the capacity: the farthest


class IsectCounts(NamedTuple):
    """How the capacity was used, in pairs of Gaussian and tile."""

    num_isects: jax.Array  # [] int32, intersections wanted
    num_dropped: jax.Array  # [] int32, those beyond the capacity: the farthest


def index_bits(n: int) -> int:
    """Bits that hold the numbers below n."""
    return max(1, math.ceil(math.log2(max(n, 2))))


def depth_order(depths: jax.Array, visible: jax.Array) -> jax.Array:
    """Exact front-to-back order of positive depths [N]; invisible ones go last.

    Ties keep the index order. Returns [N] int32.
    """
    # The bit pattern of positive floats grows with their value.
    keys = jax.lax.bitcast_convert_type(depths.astype(jnp.float32), jnp.uint32)
    keys = jnp.where(visible, keys, jnp.uint32(0x7FFFFFFF))
    return _stable_order(keys, key_bits=31)


def _stable_order(keys: jax.Array, *, key_bits: int) -> jax.Array:
    """Indices [N] int32 that sort keys [N] uint32 of so many bits; ties stay in order.

    A least-significant-digit radix sort whose digits are as wide as the index leaves
    room for.
    """
    n = keys.shape[0]
    bits = index_bits(n)
    digit_bits = 32 - bits
    low_mask = jnp.uint32((1 << bits) - 1)
    order = jnp.arange(n, dtype=jnp.uint32)
    rank = jnp.arange(n, dtype=jnp.uint32)
    for shift in range(0, key_bits, digit_bits):
        digit = (keys if shift == 0 else keys[order]) >> shift
        digit &= jnp.uint32((1 << digit_bits) - 1)
        packed = jnp.sort((digit << bits) | rank)
        order = order[packed & low_mask]
    return order.astype(jnp.int32)


def _first_slots(values: jax.Array, bounds: jax.Array) -> jax.Array:
    """Where each bound would go into sorted values, before its equals.

    On a GPU a loop would be 19 launches of several kernels, a third of all that a small
    frame takes there, so that the search is unrolled. On a CPU the loop is quicker, and
    compilers fuse the unrolled search into all that reads it, which can take minutes.
    """

    def search(method):
        return partial(jnp.searchsorted, method=method)

    return jax.lax.platform_dependent(
        values, bounds, cuda=search("scan_unrolled"), default=search("scan")
    )


def isect_tiles(
    means2d: jax.Array,  # [N, 2] pixels
    radii: jax.Array,  # [N, 2] pixels, zero where culled
    depths: jax.Array,  # [N]
    *,
    width: int,
    height: int,
    tile_size: int,
    max_isects: int,
) -> TileLists:
    """Lists the Gaussians of each tile in depth order.

    When more than `max_isects` intersections are wanted, the farthest Gaussians lose
    theirs, and `num_dropped` says how many.
    """
    n = means2d.shape[0]
    tile_width, tile_height = -(-width // tile_size), -(-height // tile_size)
    num_tiles = tile_width * tile_height
    visible = radii[:, 0] > 0
    # A pixel counts when its centre lies in the box.
    first = jnp.ceil(means2d - radii - 0.5)
    last = jnp.floor(means2d + radii - 0.5)
    size = jnp.array([width, height], jnp.float32)
    first = jnp.clip(first, 0.0, size).astype(jnp.int32)
    last = jnp.clip(last, -1.0, size - 1.0).astype(jnp.int32)
    visible &= jnp.all(last >= first, axis=-1)
    tile_min, tile_max = first // tile_size, last // tile_size
    extent = jnp.where(visible[:, None], tile_max - tile_min + 1, 0)
    tiles_per_gauss = extent[:, 0] * extent[:, 1]

    order = depth_order(depths, visible)
    counts = tiles_per_gauss[order]
    # Saturating: 250k Gaussians that cover an 8k image would pass 2^31.
    ends_f = jnp.cumsum(counts.astype(jnp.float32))
    ends = jnp.where(
        ends_f < 2.0e9, jnp.cumsum(counts), jnp.int32(np.iinfo(np.int32).max)
    )
    total = ends[-1]
    starts = ends - counts

    # Slot -> rank: mark each Gaussian's first slot with its rank, spread by maximum.
    ranks = jnp.arange(n, dtype=jnp.int32)
    target = jnp.where((counts > 0) & (ends > 0), starts, max_isects)
    marks = jnp.zeros(max_isects, jnp.int32).at[target].max(ranks, mode="drop")
    rank = jax.lax.cummax(marks)
    packed = jnp.stack(
        [
            starts,
            tile_min[order, 0] + tile_min[order, 1] * tile_width,
            extent[order, 0],
        ],
        axis=-1,
    )[rank]
    slot = jnp.arange(max_isects, dtype=jnp.int32)
    local = slot - packed[:, 0]
    across = jnp.maximum(packed[:, 2], 1)
    row = local // across
    tile = packed[:, 1] + row * tile_width + (local - row * across)
    live = slot < jnp.minimum(total, max_isects)

    rank_bits, tile_bits = index_bits(n), index_bits(num_tiles + 1)
    tile = jnp.where(live, tile, num_tiles)
    if rank_bits + tile_bits <= 32:
        keys = (tile.astype(jnp.uint32) << rank_bits) | rank.astype(jnp.uint32)
        keys = jnp.sort(keys)
        sorted_rank = (keys & jnp.uint32((1 << rank_bits) - 1)).astype(jnp.int32)
        bounds = jnp.arange(num_tiles + 1, dtype=jnp.uint32) << rank_bits
        offsets = _first_slots(keys, bounds)
    else:
        # Slots are in depth order already. A sort of two operands, the other way, is
        # several times slower, on a GPU as on a CPU.
        by_tile = _stable_order(tile.astype(jnp.uint32), key_bits=tile_bits)
        sorted_rank = rank[by_tile]
        offsets = _first_slots(tile[by_tile], jnp.arange(num_tiles + 1))
    return TileLists(
        flatten_ids=order[sorted_rank],
        isect_offsets=offsets.astype(jnp.int32),
        num_isects=total,
        num_dropped=jnp.maximum(total - max_isects, 0),
    )
