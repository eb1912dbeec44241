"""Depth order and tile lists, by radix and counting sort."""

import numpy as np

from npga_jax.rasterizer.native.jit import inner
from npga_jax.rasterizer.native.layout import (
    BINS,
    DIGIT_BITS,
    FIRST_X,
    FIRST_Y,
    LAST_X,
    LAST_Y,
    TILE,
    bins_at,
)
from npga_jax.rasterizer.native.scratch import (
    bits_of,
    load_f32,
    load_i32,
    load_u64,
    prefetch,
    store_i32,
    store_u64,
)

_AHEAD = 8
_INT32_MAX = np.iinfo(np.int32).max
_SATURATED = 2_000_000_000
"""The pure path counts in float32 beyond this, and gives up."""


@inner
def depth_order(p, keys, spare, bins_address):
    """Sorts the Gaussians that touch a pixel, front to back; ties keep their order.

    Args:
      keys: room for n + 1 uint64.
      spare: likewise.
      bins_address: room for `BINS_BYTES`.

    Returns:
      Where the result is, depth bits above the index, and how many there are.
    """
    n, kept, depths = p.n, p.kept, p.depths
    bins = bins_at(bins_address)
    for digit in range(3):
        for b in range(BINS):
            bins[digit, b] = 0
    count = 0
    for i in range(n):
        if load_i32(kept + 4 * i) > 0:
            # The bit pattern of positive floats grows with their value.
            bits = bits_of(load_f32(depths + 4 * i))
            store_u64(keys + 8 * count, (bits << np.uint64(32)) | np.uint64(i))
            count += 1
            for digit in range(3):
                shift = np.uint64(DIGIT_BITS * digit)
                bins[digit, (bits >> shift) & np.uint64(BINS - 1)] += 1
    for digit in range(3):
        start = 0
        for b in range(BINS):
            size = bins[digit, b]
            bins[digit, b] = start
            start += size
        shift = np.uint64(32 + DIGIT_BITS * digit)
        for k in range(count):
            key = load_u64(keys + 8 * k)
            b = (key >> shift) & np.uint64(BINS - 1)
            store_u64(spare + 8 * bins[digit, b], key)
            bins[digit, b] += 1
        keys, spare = spare, keys
    return keys, count


@inner
def count_isects(p, keys, count):
    """Writes how many tiles were wanted and dropped; whether some must be dropped.

    In that case `kept` is what the capacity leaves to each Gaussian.
    """
    total = 0
    for k in range(count):
        total += load_i32(p.kept + 4 * load_i32(keys + 8 * k))
    wanted = total if total < _SATURATED else _INT32_MAX
    store_i32(p.counts, np.int32(wanted))
    store_i32(p.counts + 4, np.int32(max(wanted - p.max_isects, 0)))
    if total <= p.max_isects:
        return False
    room = p.max_isects
    for k in range(count):
        address = p.kept + 4 * load_i32(keys + 8 * k)
        kept = min(room, int(load_i32(address)))
        store_i32(address, np.int32(kept))
        room -= kept
    return True


@inner
def box_of_tiles(record):
    """First and last column and row of the tiles that a record touches."""
    # Python's floor division: a box that ends at -1 touches nothing.
    return (
        load_i32(record + FIRST_X) // TILE,
        load_i32(record + LAST_X) // TILE,
        load_i32(record + FIRST_Y) // TILE,
        load_i32(record + LAST_Y) // TILE,
    )


@inner
def _count_tiles(p, record):
    left, right, top, bottom = box_of_tiles(record)
    columns, last = p.columns, p.num_tiles
    for y in range(top, bottom + 1):
        for t in range(y * columns + left, y * columns + right + 1):
            # Two ahead, so that filling the lists leaves the offsets behind.
            if t + 2 <= last:
                address = p.offsets + 4 * (t + 2)
                store_i32(address, np.int32(load_i32(address) + 1))


@inner
def _append(p, i):
    left, right, top, bottom = box_of_tiles(p.records + i * p.record_bytes)
    columns, ids, offsets = p.columns, p.ids, p.offsets
    for y in range(top, bottom + 1):
        for t in range(y * columns + left, y * columns + right + 1):
            address = offsets + 4 * (t + 1)
            end = load_i32(address)
            store_i32(ids + 4 * end, np.int32(i))
            store_i32(address, np.int32(end + 1))


@inner
def tile_lists(p, keys, count):
    """Writes `ids`, tile by tile and front to back, and `offsets` of the tiles."""
    records, stride, tiles = p.records, p.record_bytes, p.num_tiles
    for t in range(tiles + 1):
        store_i32(p.offsets + 4 * t, np.int32(0))
    for k in range(count):
        prefetch(records + load_i32(keys + 8 * min(k + _AHEAD, count - 1)) * stride)
        _count_tiles(p, records + load_i32(keys + 8 * k) * stride)
    _count_tiles(p, records + p.n * stride)
    for t in range(2, tiles + 1):
        total = load_i32(p.offsets + 4 * t) + load_i32(p.offsets + 4 * (t - 1))
        store_i32(p.offsets + 4 * t, np.int32(total))
    boundary = p.boundary
    for k in range(count):
        prefetch(records + load_i32(keys + 8 * min(k + _AHEAD, count - 1)) * stride)
        i = load_i32(keys + 8 * k)
        _append(p, i)
        if i == boundary:
            _append(p, p.n)
