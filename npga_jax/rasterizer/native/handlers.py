"""The two functions that XLA calls, and the phases they consist of.

XLA's FFI passes one C struct, the call frame (xla/ffi/api/c_api.h, version 0.3). It is
read by the offsets of its fields. `API_VERSION` is the version that is declared.
"""

import numpy as np
from llvmlite import ir
from numba import cfunc, njit
from numba.core import types
from numba.extending import intrinsic

from npga_jax.rasterizer.native.backward import backward_tile, gaussian_gradients
from npga_jax.rasterizer.native.forward import forward_tile
from npga_jax.rasterizer.native.layout import (
    CHUNK,
    PARAMS,
    num_tiles,
    params_at,
    record_bytes,
    row_bytes,
)
from npga_jax.rasterizer.native.lists import (
    box_of_tiles,
    count_isects,
    depth_order,
    tile_lists,
)
from npga_jax.rasterizer.native.memory import (
    allocate,
    call,
    free,
    load_i32,
    load_i64,
    store_i32,
    store_i64,
)
from npga_jax.rasterizer.native.pool import make_parallel_for
from npga_jax.rasterizer.native.records import (
    clear_box,
    make_records,
    set_first_row,
)
from npga_jax.rasterizer.native.simd import BYTES

API_VERSION = (0, 3)

_METADATA_EXTENSION = 1
_EXECUTE = 3
_RESOURCE_EXHAUSTED = 8
_FRAME_EXTENSION, _FRAME_API, _FRAME_STAGE = 8, 16, 32
_FRAME_ARGS, _FRAME_RETS, _FRAME_ATTRS = 72, 112, 160
_BUFFER_DATA, _BUFFER_DIMS = 24, 40
_API_ERROR_CREATE = 48

_RECORDS, _FORWARD, _BACKWARD, _GRADIENTS = range(4)


@njit(error_model="numpy")
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


_parallel_for = make_parallel_for(_run_item)


@intrinsic
def _message(typingctx):
    """Address of the text for a want of memory."""

    def codegen(context, builder, sig, args):
        text = "npga_jax: no memory left for the rasterizer"
        pointer = context.insert_const_string(builder.module, text)
        return builder.ptrtoint(pointer, ir.IntType(64))

    return types.int64(), codegen


@njit(error_model="numpy")
def _out_of_memory(frame):
    arguments = np.zeros(4, np.int64)
    arguments[0], arguments[2], arguments[3] = 28, _message(), _RESOURCE_EXHAUSTED
    return call(load_i64(load_i64(frame + _FRAME_API) + _API_ERROR_CREATE),
                arguments.ctypes.data)


@njit(error_model="numpy")
def _is_query(frame):
    """Answers XLA's question for the version; whether it was one."""
    extension = load_i64(frame + _FRAME_EXTENSION)
    while extension != 0:
        if load_i32(extension + 8) == _METADATA_EXTENSION:
            metadata = load_i64(extension + 24)
            store_i32(metadata + 24, np.int32(API_VERSION[0]))
            store_i32(metadata + 28, np.int32(API_VERSION[1]))
            store_i32(metadata + 32, np.int32(0))
            return True
        extension = load_i64(extension + 16)
    return load_i32(frame + _FRAME_STAGE) != _EXECUTE


@njit(error_model="numpy")
def _buffer(buffers, index):
    return load_i64(buffers + 8 * index)


@njit(error_model="numpy")
def _data(buffers, index):
    return load_i64(_buffer(buffers, index) + _BUFFER_DATA)


@njit(error_model="numpy")
def _dim(buffers, index, axis):
    return load_i64(load_i64(_buffer(buffers, index) + _BUFFER_DIMS) + 8 * axis)


@njit(error_model="numpy")
def _read_inputs(frame, p):
    inputs = load_i64(frame + _FRAME_ARGS)
    p.n, p.channels = _dim(inputs, 5, 0), _dim(inputs, 5, 1)
    attribute = load_i64(load_i64(frame + _FRAME_ATTRS))
    p.tile_size = load_i32(load_i64(attribute + 8))
    p.means2d, p.radii, p.depths = _data(inputs, 0), _data(inputs, 1), _data(inputs, 2)
    p.conics, p.opacities = _data(inputs, 3), _data(inputs, 4)
    p.colors = _data(inputs, 5)
    p.boundary = -1


@njit(error_model="numpy")
def _read_results(buffers, first, p):
    """The forward pass's results, which are inputs of the backward pass."""
    p.height, p.width = _dim(buffers, first, 0), _dim(buffers, first, 1)
    p.max_isects = _dim(buffers, first + 4, 0)
    p.image, p.transmittance = _data(buffers, first), _data(buffers, first + 1)
    p.counts, p.kept = _data(buffers, first + 2), _data(buffers, first + 3)
    p.ids, p.offsets = _data(buffers, first + 4), _data(buffers, first + 5)


@njit(error_model="numpy")
def _make_all_records(frame, address):
    p = params_at(address)
    clear_box(p.records + p.n * record_bytes(p))
    chunks = (p.n + CHUNK - 1) // CHUNK
    return _parallel_for(frame, _RECORDS, address, chunks)


@njit(error_model="numpy")
def _forward(frame, address):
    p = params_at(address)
    if not _make_all_records(frame, address):
        return False
    keys = allocate(16 * (p.n + 1))
    if keys == 0:
        return False
    order, count = depth_order(p, keys, keys + 8 * (p.n + 1))
    if count_isects(p, order, count):
        p.dropping = 1
        if not _make_all_records(frame, address):
            free(keys)
            return False
    tile_lists(p, order, count)
    free(keys)
    return _parallel_for(frame, _FORWARD, address, num_tiles(p))


@njit(error_model="numpy")
def _number_rows(p):
    """Gives each record its rows of gradients; how many there are."""
    row = 0
    for i in range(p.n + 1):
        record = p.records + i * record_bytes(p)
        left, right, top, bottom = box_of_tiles(record)
        set_first_row(record, row)
        row += (right - left + 1) * (bottom - top + 1)
    return row


@njit(error_model="numpy")
def _backward(frame, address):
    p = params_at(address)
    p.dropping = 1
    if not _make_all_records(frame, address):
        return False
    p.rows = allocate(_number_rows(p) * row_bytes(p) + BYTES)
    if p.rows == 0:
        return False
    chunks = (p.n + CHUNK - 1) // CHUNK
    ok = _parallel_for(frame, _BACKWARD, address, num_tiles(p))
    ok = ok and _parallel_for(frame, _GRADIENTS, address, chunks)
    free(p.rows)
    return ok


@njit(error_model="numpy")
def _run(frame, address, forward):
    p = params_at(address)
    p.records = allocate((p.n + 1) * record_bytes(p))
    if p.records == 0:
        return False
    p.dropping = 0
    ok = _forward(frame, address) if forward else _backward(frame, address)
    free(p.records)
    return ok


_PARAMS_BYTES = PARAMS.itemsize
_HANDLER = types.int64(types.int64)


@cfunc(_HANDLER, cache=True, error_model="numpy")
def composite_forward(frame):
    """XLA_FFI_Handler: the six inputs of `layout.PARAMS` to its six outputs."""
    if _is_query(frame):
        return 0
    address = allocate(_PARAMS_BYTES)
    if address == 0:
        return _out_of_memory(frame)
    p = params_at(address)
    _read_inputs(frame, p)
    _read_results(load_i64(frame + _FRAME_RETS), 0, p)
    ok = _run(frame, address, True)
    free(address)
    return 0 if ok else _out_of_memory(frame)


@cfunc(_HANDLER, cache=True, error_model="numpy")
def composite_backward(frame):
    """XLA_FFI_Handler: inputs, outputs and cotangents to the gradients."""
    if _is_query(frame):
        return 0
    address = allocate(_PARAMS_BYTES)
    if address == 0:
        return _out_of_memory(frame)
    p = params_at(address)
    _read_inputs(frame, p)
    inputs, outputs = load_i64(frame + _FRAME_ARGS), load_i64(frame + _FRAME_RETS)
    _read_results(inputs, 6, p)
    p.d_image, p.d_transmittance = _data(inputs, 12), _data(inputs, 13)
    p.d_means2d, p.d_conics = _data(outputs, 0), _data(outputs, 1)
    p.d_opacities, p.d_colors = _data(outputs, 2), _data(outputs, 3)
    ok = _run(frame, address, False)
    free(address)
    return 0 if ok else _out_of_memory(frame)
