"""What XLA calls, and the phases it consists of."""

from numba import cfunc
from numba.core import types

from npga_jax.rasterizer.native.backward import backward_tile, gaussian_gradients
from npga_jax.rasterizer.native.forward import forward_tile
from npga_jax.rasterizer.native.frame import (
    arguments_of,
    attribute,
    data,
    dim,
    is_query,
    num_arguments,
    out_of_memory,
    results_of,
)
from npga_jax.rasterizer.native.jit import inner
from npga_jax.rasterizer.native.layout import (
    BINS_BYTES,
    PARAMS,
    derive_sizes,
    params_at,
)
from npga_jax.rasterizer.native.lists import (
    box_of_tiles,
    count_isects,
    depth_order,
    tile_lists,
)
from npga_jax.rasterizer.native.pool import make_task, parallel_for
from npga_jax.rasterizer.native.records import clear_box, make_records, set_first_row
from npga_jax.rasterizer.native.scratch import (
    allocate,
    free,
    load_i32,
    load_i64,
    open_account,
    stack_words,
)
from npga_jax.rasterizer.native.simd import BYTES

_RECORDS, _FORWARD, _BACKWARD, _GRADIENTS = range(4)
_NUM_INPUTS = 6
_ALLOCATIONS, _TILE_SIZE = range(2)
"""The attributes, in the order of their names."""

_PARAMS_BYTES = PARAMS.itemsize


@inner
def _run_item(kind, address, item):
    p = params_at(address)
    if kind == _RECORDS:
        make_records(p, item)
    elif kind == _FORWARD:
        forward_tile(p, item)
    elif kind == _BACKWARD:
        backward_tile(p, item)
    else:
        gaussian_gradients(p, item)


_task_address = make_task(_run_item)


@inner
def _read(frame, p):
    """Sizes and addresses from the call; whether it is the backward pass."""
    inputs, results = arguments_of(frame), results_of(frame)
    p.tile_size = load_i32(attribute(frame, _TILE_SIZE))
    p.n, p.channels = dim(inputs, 5, 0), dim(inputs, 5, 1)
    p.means2d, p.radii, p.depths = data(inputs, 0), data(inputs, 1), data(inputs, 2)
    p.conics, p.opacities = data(inputs, 3), data(inputs, 4)
    p.colors = data(inputs, 5)
    backward = num_arguments(frame) > _NUM_INPUTS
    outputs, first = results, 0
    if backward:
        outputs, first = inputs, _NUM_INPUTS
        p.d_image, p.d_transmittance = data(inputs, 12), data(inputs, 13)
        p.d_means2d, p.d_conics = data(results, 0), data(results, 1)
        p.d_opacities, p.d_colors = data(results, 2), data(results, 3)
    p.height, p.width = dim(outputs, first, 0), dim(outputs, first, 1)
    p.max_isects = dim(outputs, first + 4, 0)
    p.image, p.transmittance = data(outputs, first), data(outputs, first + 1)
    p.counts, p.kept = data(outputs, first + 2), data(outputs, first + 3)
    p.ids, p.offsets = data(outputs, first + 4), data(outputs, first + 5)
    p.boundary = -1
    derive_sizes(p)
    return backward


@inner
def _for_all(frame, task, kind, address, total):
    account = params_at(address).account
    return parallel_for(frame, task, kind, address, total, account)


@inner
def _forward(frame, task, address):
    p = params_at(address)
    p.dropping = 0
    if not _for_all(frame, task, _RECORDS, address, p.chunks):
        return False
    keys = allocate(p.account, 16 * (p.n + 1) + BINS_BYTES)
    if keys == 0:
        return False
    spare = keys + 8 * (p.n + 1)
    order, count = depth_order(p, keys, spare, spare + 8 * (p.n + 1))
    ok = True
    if count_isects(p, order, count):
        p.dropping = 1
        ok = _for_all(frame, task, _RECORDS, address, p.chunks)
    if ok:
        tile_lists(p, order, count)
        ok = _for_all(frame, task, _FORWARD, address, p.num_tiles)
    free(keys)
    return ok


@inner
def _number_rows(p):
    """Gives each record its rows of gradients; how many there are."""
    row = 0
    for i in range(p.n + 1):
        record = p.records + i * p.record_bytes
        left, right, top, bottom = box_of_tiles(record)
        set_first_row(record, row)
        row += (right - left + 1) * (bottom - top + 1)
    return row


@inner
def _backward(frame, task, address):
    p = params_at(address)
    # What was dropped stays dropped.
    p.dropping = 1
    if not _for_all(frame, task, _RECORDS, address, p.chunks):
        return False
    p.rows = allocate(p.account, _number_rows(p) * p.row_bytes + BYTES)
    if p.rows == 0:
        return False
    ok = _for_all(frame, task, _BACKWARD, address, p.num_tiles)
    ok = ok and _for_all(frame, task, _GRADIENTS, address, p.chunks)
    free(p.rows)
    return ok


@inner
def _run(frame, task):
    account = stack_words()
    open_account(account, load_i64(attribute(frame, _ALLOCATIONS)))
    address = allocate(account, _PARAMS_BYTES)
    if address == 0:
        return False
    p = params_at(address)
    p.account = account
    backward = _read(frame, p)
    p.records = allocate(account, (p.n + 1) * p.record_bytes)
    ok = p.records != 0
    if ok:
        clear_box(p.records + p.n * p.record_bytes)
        if backward:
            ok = _backward(frame, task, address)
        else:
            ok = _forward(frame, task, address)
        free(p.records)
    free(address)
    return ok


@cfunc(types.int64(types.int64), cache=True, error_model="numpy")
def composite(frame):
    """XLA_FFI_Handler, by the number of its arguments the forward or backward pass."""
    if is_query(frame) or _run(frame, _task_address()):
        return 0
    return out_of_memory(frame)
