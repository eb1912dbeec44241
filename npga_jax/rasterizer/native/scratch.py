"""Plain memory in numba code: loads and stores by address, atomics, the heap."""

from llvmlite import ir
from numba.core import cgutils, types

from npga_jax.rasterizer.native.jit import inner, intrinsic

_I64 = ir.IntType(64)
_LINE = 64
"""Bytes."""

# An account: how many allocations may still be made, and how many have failed.
_LEFT, _FAILED = 0, 8


def _loader(numba_type, llvm_type):
    @intrinsic
    def load(typingctx, address):
        def codegen(context, builder, sig, args):
            return builder.load(builder.inttoptr(args[0], llvm_type.as_pointer()))

        return numba_type(types.int64), codegen

    return load


def _storer(numba_type, llvm_type):
    @intrinsic
    def store(typingctx, address, value):
        def codegen(context, builder, sig, args):
            pointer = builder.inttoptr(args[0], llvm_type.as_pointer())
            builder.store(args[1], pointer)
            return context.get_dummy_value()

        return types.void(types.int64, numba_type), codegen

    return store


load_i32 = _loader(types.int32, ir.IntType(32))
load_i64 = _loader(types.int64, _I64)
load_u64 = _loader(types.uint64, _I64)
load_f32 = _loader(types.float32, ir.FloatType())
store_i32 = _storer(types.int32, ir.IntType(32))
store_i64 = _storer(types.int64, _I64)
store_u64 = _storer(types.uint64, _I64)
store_f32 = _storer(types.float32, ir.FloatType())


@intrinsic
def bits_of(typingctx, value):
    """The bit pattern of a float32, as an unsigned number."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(32))
        return builder.zext(bits, _I64)

    return types.uint64(types.float32), codegen


@intrinsic
def atomic_add(typingctx, address, value):
    """Adds to the int64 at an address, in one step for all threads; the old value."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", pointer, args[1], "seq_cst")

    return types.int64(types.int64, types.int64), codegen


@intrinsic
def atomic_load(typingctx, address):
    """The int64 at an address as other threads last wrote it."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], _I64.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64), codegen


@intrinsic
def _allocate(typingctx, size):
    def codegen(context, builder, sig, args):
        return builder.ptrtoint(context.nrt.allocate(builder, args[0]), _I64)

    return types.int64(types.int64), codegen


@intrinsic
def _free(typingctx, address):
    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], ir.IntType(8).as_pointer())
        context.nrt.free(builder, pointer)
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def stack_words(typingctx):
    """Address of 32 bytes that live as long as the function which asks for them."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(
            cgutils.alloca_once(builder, ir.ArrayType(_I64, 4)), _I64
        )

    return types.int64(), codegen


@inner
def open_account(account, allocations):
    """Starts an account at an address with room for two int64."""
    store_i64(account + _LEFT, allocations)
    store_i64(account + _FAILED, 0)


@inner
def has_failed(account):
    """Whether an allocation on this account has failed, in whatever thread."""
    return atomic_load(account + _FAILED) != 0


@inner
def allocate(account, size):
    """Uninitialised heap memory that begins a cache line.

    Returns:
      Its address; 0 where there is none, which the account then knows.
    """
    whole = 0
    if atomic_add(account + _LEFT, -1) > 0:
        whole = _allocate(size + 2 * _LINE)
    if whole == 0:
        atomic_add(account + _FAILED, 1)
        return 0
    address = (whole // _LINE + 2) * _LINE
    store_i64(address - 8, whole)
    return address


@inner
def free(address):
    """Gives back what `allocate` gave."""
    _free(load_i64(address - 8))


@intrinsic
def prefetch(typingctx, address):
    """Asks for the cache line of an address, which need not be valid."""

    def codegen(context, builder, sig, args):
        byte, i32 = ir.IntType(8).as_pointer(), ir.IntType(32)
        of_type = ir.FunctionType(ir.VoidType(), [byte, i32, i32, i32])
        name = "llvm.prefetch.p0"
        function = cgutils.get_or_insert_function(builder.module, of_type, name)
        # For reading, to keep in all levels, data.
        how = [ir.Constant(i32, value) for value in (0, 3, 1)]
        builder.call(function, [builder.inttoptr(args[0], byte), *how])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def yield_core(typingctx):
    """Lets another thread run, if one is waiting; POSIX's sched_yield."""

    def codegen(context, builder, sig, args):
        of_type = ir.FunctionType(ir.IntType(32), [])
        function = cgutils.get_or_insert_function(
            builder.module, of_type, "sched_yield"
        )
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def call(typingctx, function, argument):
    """Calls the C function at an address, pointer to pointer."""

    def codegen(context, builder, sig, args):
        pointer = builder.inttoptr(args[0], ir.FunctionType(_I64, [_I64]).as_pointer())
        return builder.call(pointer, [args[1]])

    return types.int64(types.int64, types.int64), codegen
