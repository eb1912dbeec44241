"""Blends the Gaussians of one tile, front to back."""

import math

import numpy as np

from npga_jax.rasterizer.compositing import MAX_ALPHA, TRANSMITTANCE_THRESHOLD
from npga_jax.rasterizer.native.jit import inner
from npga_jax.rasterizer.native.layout import (
    BLOCK,
    BLOCKS,
    COLORS,
    FIRST_X,
    FIRST_Y,
    GROUP,
    LAST_X,
    LAST_Y,
    LOG2_OPACITY,
    MEAN_X,
    MEAN_Y,
    QUAD_A,
    QUAD_B,
    QUAD_C,
    TILE,
)
from npga_jax.rasterizer.native.scratch import (
    allocate,
    free,
    load_f32,
    load_i32,
    prefetch,
    store_f32,
)
from npga_jax.rasterizer.native.simd import (
    BYTES,
    any_lane,
    block_x,
    block_y,
    exp2,
    fma,
    load,
    minimum,
    negative_abs,
    select,
    splat,
    splat_at,
    store,
)
from npga_jax.rasterizer.projection import ALPHA_THRESHOLD

LOG2_THRESHOLD = np.float32(math.log2(ALPHA_THRESHOLD))
LARGEST_ALPHA = np.float32(MAX_ALPHA)
LEAST_LIGHT = np.float32(TRANSMITTANCE_THRESHOLD)
ZERO, ONE = np.float32(0), np.float32(1)
ACROSS = TILE // BLOCK
AHEAD = 8
"""Gaussians; their records are asked for early, for they lie anywhere."""

CHECK_EVERY = 16
"""Gaussians between two looks at whether the whole tile is finished."""


@inner
def blocks_of(record, left, top):
    """First and last column and row of a tile's blocks that a record touches."""
    return (
        max(load_i32(record + FIRST_X) - left, 0) // BLOCK,
        min(load_i32(record + LAST_X) - left, TILE - 1) // BLOCK,
        max(load_i32(record + FIRST_Y) - top, 0) // BLOCK,
        min(load_i32(record + LAST_Y) - top, TILE - 1) // BLOCK,
    )


@inner
def start_light(p, left, top, state, stride):
    """Full transmittance for the pixels of the image, finished (-1) beyond it."""
    for block in range(BLOCKS):
        x = splat(np.float32(left + block % ACROSS * BLOCK)) + block_x()
        y = splat(np.float32(top + block // ACROSS * BLOCK)) + block_y()
        inside = (x < splat(np.float32(p.width))) & (y < splat(np.float32(p.height)))
        light = select(inside, splat(ONE), splat(-ONE))
        store(state + block * stride, light)


@inner
def is_finished(state, stride):
    """Whether no pixel of the tile has light left."""
    for block in range(BLOCKS):
        if any_lane(load(state + block * stride) > splat(ZERO)):
            return False
    return True


@inner
def _accumulate(address, weight, color):
    store(address, fma(weight, color, load(address)))


@inner
def forward_tile(p, tile):
    """One item of the parallel loop over tiles."""
    padded, width, height = p.padded, p.width, p.height
    stride = BYTES * (1 + padded)
    # Per block: the transmittance, negative once finished, and the colours.
    state = allocate(p.account, BLOCKS * stride)
    if state == 0:
        return
    columns = p.columns
    left, top = tile % columns * TILE, tile // columns * TILE
    start_light(p, left, top, state, stride)
    for block in range(BLOCKS):
        for f in range(padded):
            store(state + block * stride + BYTES * (1 + f), splat(ZERO))

    records, size, ids = p.records, p.record_bytes, p.ids
    begin = load_i32(p.offsets + 4 * tile)
    end = load_i32(p.offsets + 4 * (tile + 1))
    for k in range(begin, end):
        if (k - begin) % CHECK_EVERY == CHECK_EVERY - 1 and is_finished(state, stride):
            break
        record = records + load_i32(ids + 4 * k) * size
        ahead = min(k + AHEAD, end - 1)
        prefetch(records + load_i32(ids + 4 * ahead) * size)
        mean_x, mean_y = splat_at(record + MEAN_X), splat_at(record + MEAN_Y)
        a, b, c = (
            splat_at(record + QUAD_A),
            splat_at(record + QUAD_B),
            splat_at(record + QUAD_C),
        )
        log2_opacity = splat_at(record + LOG2_OPACITY)
        first_x, last_x, first_y, last_y = blocks_of(record, left, top)
        red, green = splat_at(record + COLORS), splat_at(record + COLORS + 4)
        blue, fourth = splat_at(record + COLORS + 8), splat_at(record + COLORS + 12)
        for by in range(first_y, last_y + 1):
            dy = splat(np.float32(top + by * BLOCK)) + block_y() - mean_y
            b_dy, c_dy2 = b * dy, fma(c * dy, dy, log2_opacity)
            for bx in range(first_x, last_x + 1):
                dx = splat(np.float32(left + bx * BLOCK)) + block_x() - mean_x
                power = fma(fma(a, dx, b_dy), dx, c_dy2)
                power = minimum(power, log2_opacity)
                hit = power >= splat(LOG2_THRESHOLD)
                if not any_lane(hit):
                    continue
                alpha = minimum(exp2(power), splat(LARGEST_ALPHA))
                alpha = select(hit, alpha, splat(ZERO))
                here = state + (by * ACROSS + bx) * stride
                light = load(here)
                weight = light * alpha
                after = light - weight
                active = after > splat(LEAST_LIGHT)
                store(here, select(active, after, negative_abs(light)))
                weight = select(active, weight, splat(ZERO))
                _accumulate(here + BYTES, weight, red)
                _accumulate(here + 2 * BYTES, weight, green)
                _accumulate(here + 3 * BYTES, weight, blue)
                _accumulate(here + 4 * BYTES, weight, fourth)
                for f in range(GROUP, padded):
                    color = splat_at(record + COLORS + 4 * f)
                    _accumulate(here + BYTES * (1 + f), weight, color)

    channels = p.channels
    for y in range(top, min(top + TILE, height)):
        for x in range(left, min(left + TILE, width)):
            column, row = x - left, y - top
            block = row // BLOCK * ACROSS + column // BLOCK
            lane = row % BLOCK * BLOCK + column % BLOCK
            source = state + block * stride + 4 * lane
            pixel = y * width + x
            store_f32(p.transmittance + 4 * pixel, abs(load_f32(source)))
            for f in range(channels):
                value = load_f32(source + BYTES * (1 + f))
                store_f32(p.image + 4 * (pixel * channels + f), value)
    free(state)
