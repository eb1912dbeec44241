"""Gradients of one tile, front to back again, and their sums per Gaussian.

With R_i the part of the image behind Gaussian i, dL/dalpha_i = T_i <c_i, g> -
R_i / (1 - alpha_i), and R_i follows from the finished image by subtraction. Each pair
of Gaussian and tile has a row of its own for its sums, and a Gaussian's rows follow
each other: no atomics, and the same bits whatever thread came first.
"""

import numpy as np

from npga_jax.rasterizer.native.forward import (
    ACROSS,
    AHEAD,
    CHECK_EVERY,
    LARGEST_ALPHA,
    LEAST_LIGHT,
    LOG2_THRESHOLD,
    ONE,
    ZERO,
    blocks_of,
    is_finished,
    start_light,
)
from npga_jax.rasterizer.native.jit import inner
from npga_jax.rasterizer.native.layout import (
    BLOCK,
    BLOCKS,
    CHUNK,
    COLORS,
    FIRST_ROW,
    GROUP,
    LOG2_OPACITY,
    MEAN_X,
    MEAN_Y,
    QUAD_A,
    QUAD_B,
    QUAD_C,
    ROW_COLORS,
    SUM,
    SUM_X,
    SUM_XX,
    SUM_XY,
    SUM_Y,
    SUM_YY,
    TILE,
)
from npga_jax.rasterizer.native.lists import box_of_tiles
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
    LANES,
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
    store_sums,
)

_HALF = np.float32(0.5)
_LIGHT, _BEHIND, _COTANGENT = 0, BYTES, 2 * BYTES


@inner
def _load_cotangents(p, left, top, state, stride):
    """The image's cotangents, and what lies behind the first Gaussian: everything."""
    width, channels = p.width, p.channels
    for block in range(BLOCKS):
        for f in range(1 + p.padded):
            store(state + block * stride + _BEHIND + BYTES * f, splat(ZERO))
    for y in range(top, min(top + TILE, p.height)):
        for x in range(left, min(left + TILE, width)):
            column, row = x - left, y - top
            block = row // BLOCK * ACROSS + column // BLOCK
            lane = row % BLOCK * BLOCK + column % BLOCK
            target = state + block * stride + 4 * lane
            pixel = y * width + x
            behind = load_f32(p.transmittance + 4 * pixel) * load_f32(
                p.d_transmittance + 4 * pixel
            )
            for f in range(channels):
                offset = 4 * (pixel * channels + f)
                cotangent = load_f32(p.d_image + offset)
                behind += load_f32(p.image + offset) * cotangent
                store_f32(target + _COTANGENT + BYTES * f, cotangent)
            store_f32(target + _BEHIND, behind)


@inner
def _row_of(p, record, tile_x, tile_y):
    """Address of the row of gradients of a Gaussian in a tile."""
    left, right, top, _ = box_of_tiles(record)
    place = (tile_y - top) * (right - left + 1) + tile_x - left
    return p.rows + (load_i32(record + FIRST_ROW) + place) * p.row_bytes


@inner
def backward_tile(p, tile):
    """One item of the parallel loop over tiles."""
    padded = p.padded
    stride = BYTES * (2 + padded)
    # Per block: the transmittance, the part of the loss behind, the cotangents.
    state = allocate(p.account, BLOCKS * stride + BYTES * padded)
    if state == 0:
        return
    sums = state + BLOCKS * stride
    columns = p.columns
    tile_x, tile_y = tile % columns, tile // columns
    left, top = tile_x * TILE, tile_y * TILE
    start_light(p, left, top, state, stride)
    _load_cotangents(p, left, top, state, stride)

    records, size, ids = p.records, p.record_bytes, p.ids
    begin = load_i32(p.offsets + 4 * tile)
    end = load_i32(p.offsets + 4 * (tile + 1))
    zero = splat(ZERO)
    finished = False
    for k in range(begin, end):
        record = records + load_i32(ids + 4 * k) * size
        ahead = min(k + AHEAD, end - 1)
        prefetch(records + load_i32(ids + 4 * ahead) * size)
        row = _row_of(p, record, tile_x, tile_y)
        if (k - begin) % CHECK_EVERY == CHECK_EVERY - 1 and not finished:
            finished = is_finished(state, stride)
        if finished:
            for f in range(0, p.row_bytes, 4):
                store_f32(row + f, ZERO)
            continue
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
        s = s_x = s_y = s_xx = s_xy = s_yy = zero
        s_red = s_green = s_blue = s_fourth = zero
        for f in range(GROUP, padded):
            store(sums + BYTES * f, zero)
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
                alpha = select(hit, alpha, zero)
                here = state + (by * ACROSS + bx) * stride
                light = load(here + _LIGHT)
                weight = light * alpha
                after = light - weight
                active = after > splat(LEAST_LIGHT)
                store(here + _LIGHT, select(active, after, negative_abs(light)))
                weight = select(active, weight, zero)

                g = here + _COTANGENT
                g_red, g_green = load(g), load(g + BYTES)
                g_blue, g_fourth = load(g + 2 * BYTES), load(g + 3 * BYTES)
                s_red = fma(weight, g_red, s_red)
                s_green = fma(weight, g_green, s_green)
                s_blue = fma(weight, g_blue, s_blue)
                s_fourth = fma(weight, g_fourth, s_fourth)
                shade = fma(red, g_red, green * g_green)
                shade = shade + fma(blue, g_blue, fourth * g_fourth)
                for f in range(GROUP, padded):
                    g_f = load(g + BYTES * f)
                    shade = fma(splat_at(record + COLORS + 4 * f), g_f, shade)
                    sum_at = sums + BYTES * f
                    store(sum_at, fma(weight, g_f, load(sum_at)))

                behind = load(here + _BEHIND) - weight * shade
                store(here + _BEHIND, behind)
                d_alpha = light * shade - behind / (splat(ONE) - alpha)
                moves = active & (alpha < splat(LARGEST_ALPHA))
                d_power = select(moves, d_alpha * alpha, zero)
                d_x, d_y = d_power * dx, d_power * dy
                s, s_x, s_y = s + d_power, s_x + d_x, s_y + d_y
                s_xx, s_xy = fma(d_x, dx, s_xx), fma(d_x, dy, s_xy)
                s_yy = fma(d_y, dy, s_yy)
        store_sums(row + SUM_X, s_x, s_y, s_xx, s_xy)
        store_sums(row + SUM_YY, s_yy, s, zero, zero)
        store_sums(row + ROW_COLORS, s_red, s_green, s_blue, s_fourth)
        for f in range(GROUP, padded, GROUP):
            at = sums + BYTES * f
            store_sums(
                row + ROW_COLORS + 4 * f,
                load(at),
                load(at + BYTES),
                load(at + 2 * BYTES),
                load(at + 3 * BYTES),
            )
    free(state)


@inner
def add_rows(p, record, i, total):
    """Adds the rows of a record to the gradients of Gaussian i.

    Args:
      total: scratch, room for one row and one vector.
    """
    left, right, top, bottom = box_of_tiles(record)
    num_rows = (right - left + 1) * (bottom - top + 1)
    size = p.row_bytes
    rows = p.rows + load_i32(record + FIRST_ROW) * size
    for offset in range(0, size, 4 * LANES):
        accumulated = splat(ZERO)
        for k in range(num_rows):
            # The last vector may reach into the next row: those lanes are not used.
            accumulated = accumulated + load(rows + k * size + offset)
        store(total + offset, accumulated)

    a, b = load_f32(p.conics + 12 * i), load_f32(p.conics + 12 * i + 4)
    c = load_f32(p.conics + 12 * i + 8)
    s_x, s_y = load_f32(total + SUM_X), load_f32(total + SUM_Y)
    _add(p.d_means2d + 8 * i, a * s_x + b * s_y)
    _add(p.d_means2d + 8 * i + 4, b * s_x + c * s_y)
    _add(p.d_conics + 12 * i, -_HALF * load_f32(total + SUM_XX))
    _add(p.d_conics + 12 * i + 4, -load_f32(total + SUM_XY))
    _add(p.d_conics + 12 * i + 8, -_HALF * load_f32(total + SUM_YY))
    opacity = load_f32(p.opacities + 4 * i)
    _add(p.d_opacities + 4 * i, load_f32(total + SUM) / opacity)
    for f in range(p.channels):
        value = load_f32(total + ROW_COLORS + 4 * f)
        _add(p.d_colors + 4 * (i * p.channels + f), value)


@inner
def _add(address, value):
    store_f32(address, load_f32(address) + value)


@inner
def gaussian_gradients(p, chunk):
    """One item of the parallel loop over chunks of Gaussians."""
    total = allocate(p.account, p.row_bytes + BYTES)
    if total == 0:
        return
    for i in range(chunk * CHUNK, min((chunk + 1) * CHUNK, p.n)):
        for k in range(2):
            store_f32(p.d_means2d + 8 * i + 4 * k, ZERO)
        for k in range(3):
            store_f32(p.d_conics + 12 * i + 4 * k, ZERO)
        store_f32(p.d_opacities + 4 * i, ZERO)
        for f in range(p.channels):
            store_f32(p.d_colors + 4 * (i * p.channels + f), ZERO)
        if load_i32(p.kept + 4 * i) > 0:
            add_rows(p, p.records + i * p.record_bytes, i, total)
        if i == p.boundary:
            add_rows(p, p.records + p.n * p.record_bytes, i, total)
    free(total)
