"""XLA's call frame: the C struct with which its FFI calls a handler.

It is read by the offsets of its fields (xla/ffi/api/c_api.h, version 0.3).
"""

import numpy as np
from llvmlite import ir
from numba.core import types

from npga_jax.rasterizer.native.jit import inner, intrinsic
from npga_jax.rasterizer.native.scratch import (
    call,
    load_i32,
    load_i64,
    stack_words,
    store_i32,
    store_i64,
)

API_VERSION = (0, 3)
"""What the handler declares when XLA asks."""

_METADATA_EXTENSION = 1
_EXECUTE = 3
_RESOURCE_EXHAUSTED = 8
_FRAME_EXTENSION, _FRAME_API, _FRAME_STAGE = 8, 16, 32
_FRAME_NUM_ARGS, _FRAME_ARGS, _FRAME_RETS, _FRAME_ATTRS = 56, 72, 112, 160
_BUFFER_DATA, _BUFFER_DIMS = 24, 40
_API_ERROR_CREATE = 48


@inner
def is_query(frame):
    """Answers XLA's question for the version; whether there is nothing else to do."""
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


@inner
def num_arguments(frame):
    """How many arrays come in."""
    return load_i64(frame + _FRAME_NUM_ARGS)


@inner
def arguments_of(frame):
    """The buffers that come in."""
    return load_i64(frame + _FRAME_ARGS)


@inner
def results_of(frame):
    """The buffers to be filled."""
    return load_i64(frame + _FRAME_RETS)


@inner
def data(buffers, index):
    """Address of an array's numbers."""
    return load_i64(load_i64(buffers + 8 * index) + _BUFFER_DATA)


@inner
def dim(buffers, index, axis):
    """One of an array's sizes."""
    return load_i64(load_i64(load_i64(buffers + 8 * index) + _BUFFER_DIMS) + 8 * axis)


@inner
def attribute(frame, index):
    """Address of the value of an attribute; they are in the order of their names."""
    return load_i64(load_i64(load_i64(frame + _FRAME_ATTRS) + 8 * index) + 8)


@intrinsic
def _message(typingctx):
    def codegen(context, builder, sig, args):
        text = "npga_jax: no memory left for the rasterizer"
        pointer = context.insert_const_string(builder.module, text)
        return builder.ptrtoint(pointer, ir.IntType(64))

    return types.int64(), codegen


@inner
def out_of_memory(frame):
    """The error to return, which XLA will own."""
    # Of the stack, for the heap may be empty.
    arguments = stack_words()
    store_i64(arguments, 28)
    store_i64(arguments + 8, 0)
    store_i64(arguments + 16, _message())
    store_i64(arguments + 24, _RESOURCE_EXHAUSTED)
    api = load_i64(frame + _FRAME_API)
    return call(load_i64(api + _API_ERROR_CREATE), arguments)
