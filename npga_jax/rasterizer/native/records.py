"""One packed record per Gaussian: what compositing needs of it, in one cache line."""

import math

import numpy as np

from npga_jax.rasterizer.native.jit import inner
from npga_jax.rasterizer.native.layout import (
    CHUNK,
    COLORS,
    FIRST_ROW,
    FIRST_X,
    FIRST_Y,
    LAST_X,
    LAST_Y,
    LOG2_OPACITY,
    MEAN_X,
    MEAN_Y,
    QUAD_A,
    QUAD_B,
    QUAD_C,
)
from npga_jax.rasterizer.native.scratch import load_f32, load_i32, store_f32, store_i32

_HALF = np.float32(0.5)
_LOG2_E = np.float32(math.log2(math.e))
_ZERO = np.float32(0.0)


@inner
def _pixels(mean, radius, size):
    """First and last pixel whose centre lies within `radius`; in float32 as in JAX."""
    first = np.ceil(mean - radius - _HALF)
    last = np.floor(mean + radius - _HALF)
    first = min(max(first, _ZERO), np.float32(size))
    last = min(max(last, np.float32(-1)), np.float32(size - 1))
    return int(first), int(last)


@inner
def _set_box(record, first_x, last_x, first_y, last_y):
    store_i32(record + FIRST_X, np.int32(first_x))
    store_i32(record + LAST_X, np.int32(last_x))
    store_i32(record + FIRST_Y, np.int32(first_y))
    store_i32(record + LAST_Y, np.int32(last_y))


@inner
def clear_box(record):
    """Makes a record touch no pixel."""
    _set_box(record, 0, -1, 0, -1)


@inner
def _fill(p, i, record):
    """Everything but the box."""
    means2d, conics, colors = p.means2d, p.conics, p.colors
    store_f32(record + MEAN_X, load_f32(means2d + 8 * i))
    store_f32(record + MEAN_Y, load_f32(means2d + 8 * i + 4))
    # Powers of two: exp2 saves a multiplication per pixel.
    store_f32(record + QUAD_A, -_HALF * _LOG2_E * load_f32(conics + 12 * i))
    store_f32(record + QUAD_B, -_LOG2_E * load_f32(conics + 12 * i + 4))
    store_f32(record + QUAD_C, -_HALF * _LOG2_E * load_f32(conics + 12 * i + 8))
    opacity = load_f32(p.opacities + 4 * i)
    store_f32(record + LOG2_OPACITY, _LOG2_E * math.log(opacity))
    channels = p.channels
    for f in range(p.padded):
        value = _ZERO
        if f < channels:
            value = load_f32(colors + 4 * (i * channels + f))
        store_f32(record + COLORS + 4 * f, value)


@inner
def make_record(p, i):
    """Fills the record of Gaussian i, and `kept`: how many counted tiles it touches.

    When some are to be dropped, `kept` is input: how many of them it may touch.
    """
    record = p.records + i * p.record_bytes
    touches = load_f32(p.radii + 8 * i) > _ZERO
    first_x, last_x, first_y, last_y = 0, -1, 0, -1
    if touches:
        mean_x, mean_y = load_f32(p.means2d + 8 * i), load_f32(p.means2d + 8 * i + 4)
        radius_y = load_f32(p.radii + 8 * i + 4)
        first_x, last_x = _pixels(mean_x, load_f32(p.radii + 8 * i), p.width)
        first_y, last_y = _pixels(mean_y, radius_y, p.height)
        touches = last_x >= first_x and last_y >= first_y
    size = p.tile_size
    across = last_x // size - first_x // size + 1
    count = across * (last_y // size - first_y // size + 1) if touches else 0
    kept = count
    if p.dropping:
        kept = min(count, int(load_i32(p.kept + 4 * i)))
    else:
        # More than 2^31 tiles would be an image of 130,000 pixels squared.
        store_i32(p.kept + 4 * i, np.int32(count))
    if kept == 0:
        clear_box(record)
        return
    _fill(p, i, record)
    if kept < count:
        # Tiles are kept row by row: some full rows, then part of one.
        p.boundary = i
        partial = p.records + p.n * p.record_bytes
        _fill(p, i, partial)
        row = first_y // size + kept // across
        middle_x = (first_x // size + kept % across) * size - 1
        bottom = min(last_y, (row + 1) * size - 1)
        top = max(first_y, row * size)
        _set_box(partial, first_x, min(last_x, middle_x), top, bottom)
        if kept % across == 0:
            clear_box(partial)
        last_y = row * size - 1
    _set_box(record, first_x, last_x, first_y, last_y)
    if last_y < first_y:
        clear_box(record)


@inner
def make_records(p, chunk):
    """One item of the parallel loop over chunks of Gaussians."""
    for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, p.n)):
        make_record(p, i)


@inner
def set_first_row(record, row):
    """Where the Gaussian's rows of gradients begin."""
    store_i32(record + FIRST_ROW, np.int32(row))
