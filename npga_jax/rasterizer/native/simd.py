"""Sixteen float32 at a time in numba code, without trusting the auto-vectoriser.

`floats` and `mask` are numba types that hold one LLVM vector each. LLVM maps them to
one AVX-512 register, two of AVX2, or four of NEON. No fast-math flags: a result depends
only on the input, so that the backward pass sees the bits that the forward pass saw.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin, models, register_model

from npga_jax.rasterizer.native.jit import intrinsic

_infer_global: Any = infer_global
"""It says that it returns nothing, but it is a decorator."""

LANES = 16
BYTES = 4 * LANES
"""Of one vector in memory."""

_F32, _I32 = ir.FloatType(), ir.IntType(32)
_VECTOR = ir.VectorType(_F32, LANES)
_INTS = ir.VectorType(_I32, LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)

# Relative minimax polynomial of 2^x on [-0.5, 0.5], lowest power first; error 7.5e-8.
_EXP2_COEFFICIENTS = (
    1.00000007,
    0.69314697,
    0.2402212,
    0.05550713,
    0.00967554,
    0.00132765,
)


class _Vector(types.Type):
    """A numba type that is one LLVM vector."""


floats = _Vector(name="npga_floats16")
mask = _Vector(name="npga_mask16")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, dmm, fe_type):
        super().__init__(dmm, fe_type, _VECTOR if fe_type == floats else _BITS)


def _float_constant(value):
    # Through float32, for LLVM wants constants that a float holds exactly.
    return ir.Constant(_VECTOR, [float(np.float32(value))] * LANES)


def _add_operator(op, instruction, of):
    @_infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if args == (of, of):
                return signature(of, of, of)

    @lower_builtin(op, of, of)
    def _lower(context, builder, sig, args):
        return getattr(builder, instruction)(*args)


for _op, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _add_operator(_op, _instruction, floats)
_add_operator(operator.and_, "and_", mask)


def _add_comparison(op, sign):
    @_infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            if args == (floats, floats):
                return signature(mask, floats, floats)

    @lower_builtin(op, floats, floats)
    def _lower(context, builder, sig, args):
        return builder.fcmp_ordered(sign, *args)


for _op, _sign in ((operator.ge, ">="), (operator.gt, ">"), (operator.lt, "<")):
    _add_comparison(_op, _sign)


def _pointer(builder, address, element):
    return builder.inttoptr(address, element.as_pointer())


def _call(builder, name, args):
    """One of LLVM's own functions from vectors to a vector."""
    of_type = ir.FunctionType(_VECTOR, [_VECTOR] * len(args))
    function = cgutils.get_or_insert_function(builder.module, of_type, name)
    return builder.call(function, args)


@intrinsic
def load(typingctx, address):
    """Floats at an address, which need not be aligned."""

    def codegen(context, builder, sig, args):
        return builder.load(_pointer(builder, args[0], _VECTOR), align=4)

    return floats(types.int64), codegen


@intrinsic
def store(typingctx, address, value):
    """Writes floats to an address, which need not be aligned."""

    def codegen(context, builder, sig, args):
        builder.store(args[1], _pointer(builder, args[0], _VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, floats), codegen


def _broadcast(builder, scalar):
    single = builder.insert_element(
        ir.Constant(_VECTOR, ir.Undefined), scalar, ir.Constant(_I32, 0)
    )
    return builder.shuffle_vector(single, single, ir.Constant(_INTS, [0] * LANES))


@intrinsic
def splat(typingctx, value):
    """The same float32 in every lane."""

    def codegen(context, builder, sig, args):
        return _broadcast(builder, args[0])

    return floats(types.float32), codegen


@intrinsic
def splat_at(typingctx, address):
    """The float32 at an address in every lane."""

    def codegen(context, builder, sig, args):
        return _broadcast(builder, builder.load(_pointer(builder, args[0], _F32)))

    return floats(types.int64), codegen


def _grid(coordinate):
    """An intrinsic: pixel centres of a 4x4 block, relative to its corner."""

    @intrinsic
    def centres(typingctx):
        def codegen(context, builder, sig, args):
            return ir.Constant(_VECTOR, [coordinate(i) + 0.5 for i in range(LANES)])

        return floats(), codegen

    return centres


block_x = _grid(lambda lane: lane % 4)
block_y = _grid(lambda lane: lane // 4)


@intrinsic
def fma(typingctx, a, b, c):
    """The sum a * b + c, rounded once."""

    def codegen(context, builder, sig, args):
        return _call(builder, "llvm.fma.v16f32", args)

    return floats(floats, floats, floats), codegen


@intrinsic
def minimum(typingctx, a, b):
    """The smaller of each pair; the second where one is NaN."""

    def codegen(context, builder, sig, args):
        return builder.select(builder.fcmp_ordered("<", *args), *args)

    return floats(floats, floats), codegen


@intrinsic
def select(typingctx, condition, a, b):
    """Picks a where the mask is set, b elsewhere."""

    def codegen(context, builder, sig, args):
        return builder.select(*args)

    return floats(mask, floats, floats), codegen


@intrinsic
def negative_abs(typingctx, a):
    """-|a|."""

    def codegen(context, builder, sig, args):
        sign = ir.Constant(_INTS, [1 << 31] * LANES)
        bits = builder.or_(builder.bitcast(args[0], _INTS), sign)
        return builder.bitcast(bits, _VECTOR)

    return floats(floats), codegen


@intrinsic
def any_lane(typingctx, condition):
    """Whether the mask is set anywhere."""

    def codegen(context, builder, sig, args):
        bits = builder.bitcast(args[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(mask), codegen


@intrinsic
def exp2(typingctx, a):
    """2^a to a relative error of 3e-7 for a in [-126, 127], elsewhere anything."""

    def codegen(context, builder, sig, args):
        (x,) = args
        whole = _call(builder, "llvm.nearbyint.v16f32", [x])
        part = builder.fsub(x, whole)
        *lower, value = (_float_constant(c) for c in _EXP2_COEFFICIENTS)
        for coefficient in reversed(lower):
            value = _call(builder, "llvm.fma.v16f32", [value, part, coefficient])
        # Adding to the exponent bits multiplies by a power of two.
        shift = ir.Constant(_INTS, [23] * LANES)
        exponent = builder.shl(builder.fptosi(whole, _INTS), shift)
        bits = builder.add(builder.bitcast(value, _INTS), exponent)
        return builder.bitcast(bits, _VECTOR)

    return floats(floats), codegen


@intrinsic
def store_sums(typingctx, address, a, b, c, d):
    """Writes the sums over the lanes of four vectors: four float32."""

    def codegen(context, builder, sig, args):
        address, *vectors = args

        def pairwise(x, y, distance):
            """Adds neighbours: x's sums where a lane's bit is clear, y's where set."""
            first = [i + LANES if i & distance else i for i in range(LANES)]
            other = [i ^ distance for i in first]
            kept = builder.shuffle_vector(x, y, ir.Constant(_INTS, first))
            moved = builder.shuffle_vector(x, y, ir.Constant(_INTS, other))
            return builder.fadd(kept, moved)

        a, b, c, d = vectors
        # Lane i of `quads` holds the part of vector i % 4 that lies in lanes i // 4.
        quads = pairwise(pairwise(a, b, 1), pairwise(c, d, 1), 2)
        quarter = ir.VectorType(_F32, 4)
        indices = ir.VectorType(_I32, 4)
        total = None
        for first in range(0, LANES, 4):
            lanes = ir.Constant(indices, [first + i for i in range(4)])
            part = builder.shuffle_vector(quads, quads, lanes)
            total = part if total is None else builder.fadd(total, part)
        builder.store(total, _pointer(builder, address, quarter), align=4)
        return context.get_dummy_value()

    return types.void(types.int64, floats, floats, floats, floats), codegen
