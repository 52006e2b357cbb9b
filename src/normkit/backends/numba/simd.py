"""Vectors of numbers as values that a kernel computes with: one cache line each, in the type of computation.

A kernel says itself what is summed in which lane, so its sums are the same wherever arrays lie and however a compiler
cuts loops. LLVM splits these vectors into the registers that the processor has. `memory.py` reads and writes them.
"""

import operator
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, register_model

from normkit.backends import processor
from normkit.backends.numba.record import LINE

INDEX = ir.IntType(32)


class Pairs(types.Type):  # type: ignore[misc]
    """The Numba type of numbers in bfloat16 whose vectors hold those of even places first, then those of odd ones.

    Two neighbours are one word of 32 bits, so a vector becomes two of float32, and they a vector again, without moving
    anything between lanes. Only loops that do not tell numbers apart by their places can read them so.
    """

    bitwidth = 16

    def __init__(self) -> None:
        super().__init__(name="Pairs")


@register_model(Pairs)
class _PairsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Pairs) -> None:
        super().__init__(manager, kind, ir.IntType(16))


PAIRS = Pairs()
# How a number of a stored type is read: its type in LLVM, and that type in the name of an operation on vectors.
STORED = {
    types.float64: (ir.DoubleType(), "f64"),
    types.float32: (ir.FloatType(), "f32"),
    types.uint16: (ir.IntType(16), "i16"),  # bfloat16
    types.int16: (ir.HalfType(), "f16"),  # float16
    PAIRS: (ir.IntType(16), "i16"),  # bfloat16
}


def in_any_order(storage: Any) -> Any:
    """How to read numbers of a stored type that are not told apart by their places."""
    return PAIRS if storage is np.uint16 and not processor.has("avx512f") else storage


class Vector(types.Type):  # type: ignore[misc]
    """The Numba type of a vector of float32 or float64."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        self.lanes = LINE * 8 // dtype.bitwidth
        super().__init__(name=f"Vector({dtype})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Vector) -> None:
        super().__init__(manager, kind, ir.VectorType(STORED[kind.dtype][0], kind.lanes))


def _arithmetic(operation: Any, instruction: str) -> None:
    """Let two vectors be combined by an operator of Python."""

    @infer_global(operation)
    class _Operation(AbstractTemplate):  # type: ignore[misc]
        def generic(self, args: Any, kws: Any) -> Any:
            if len(args) == 2 and isinstance(args[0], Vector) and args[0] == args[1]:
                return signature(args[0], *args)
            return None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)

    lower_builtin(operation, Vector, Vector)(lower)


for _name, _instruction in (("add", "fadd"), ("sub", "fsub"), ("mul", "fmul")):
    _arithmetic(getattr(operator, _name), _instruction)
    _arithmetic(getattr(operator, f"i{_name}"), _instruction)


def constant(number: int, lanes: int) -> Any:
    """The same INDEX in every lane."""
    return ir.Constant(ir.VectorType(INDEX, lanes), [number] * lanes)


def _spread(builder: Any, value: Any, lanes: int) -> Any:
    """A number in every lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, value, INDEX(0)), undefined, constant(0, lanes))


def mask_of(builder: Any, count: Any, lanes: int, stored: Any = None) -> Any:
    """True for the first `count` numbers of a vector of a stored type; of lanes, if there is none."""
    order = [*range(0, lanes, 2), *range(1, lanes, 2)] if stored == PAIRS else list(range(lanes))
    places = ir.Constant(ir.VectorType(INDEX, lanes), order)
    return builder.icmp_signed("<", places, _spread(builder, builder.trunc(count, INDEX), lanes))


def function(builder: Any, name: str, result: Any, parameters: list[Any]) -> Any:
    """A function that LLVM provides."""
    return get_or_insert_function(builder.module, ir.FunctionType(result, parameters), name)


@intrinsic
def lanes(_context, like):
    """How many numbers of this type a vector holds."""
    count = LINE * 8 // like.bitwidth

    def codegen(_context, _builder, _sig, _args):
        return ir.IntType(64)(count)

    return types.int64(like), codegen


@intrinsic
def splat(_context, value):
    """A vector of one number."""
    vector = Vector(value)

    def codegen(_context, builder, _sig, args):
        return _spread(builder, args[0], vector.lanes)

    return vector(value), codegen


@intrinsic
def fma(_context, a, b, c):
    """A · b + c, rounded once where the processor has an instruction for it."""

    def codegen(_context, builder, _sig, args):
        if not processor.has("fma"):
            return builder.fadd(builder.fmul(args[0], args[1]), args[2])
        kind = args[0].type
        name = f"llvm.fma.v{a.lanes}{STORED[a.dtype][1]}"
        return builder.call(function(builder, name, kind, [kind] * 3), args)

    return a(a, b, c), codegen


@intrinsic
def first(_context, array, vector, count):
    """The first `count` numbers of a vector of an array; zeros in place of the others."""

    def codegen(_context, builder, _sig, args):
        _, value, count = args
        mask = mask_of(builder, count, vector.lanes, array.dtype)
        return builder.select(mask, value, ir.Constant(value.type, None))

    return vector(array, vector, types.int64), codegen


@intrinsic
def joined(_context, array, vector, other, count):
    """The first `count` numbers of a vector of an array, and of the other vector those behind them."""

    def codegen(_context, builder, _sig, args):
        _, value, other, count = args
        return builder.select(mask_of(builder, count, vector.lanes, array.dtype), value, other)

    return vector(array, vector, vector, types.int64), codegen


@intrinsic
def with_plain_nan(_context, array, number):
    """A number, as those of an array may be combined with it; NaN of some other digits would be rounded to zero."""

    def codegen(_context, builder, _sig, args):
        _, value = args
        if array.dtype != PAIRS:
            return value
        return builder.select(builder.fcmp_ordered("ord", value, value), value, ir.Constant(value.type, float("nan")))

    return number(array, number), codegen


@intrinsic
def clamp(_context, vector, low, high):
    """Not below low, nor above high; NaN stays NaN."""

    def codegen(_context, builder, _sig, args):
        value, low, high = args
        value = builder.select(builder.fcmp_ordered("<", value, low), low, value)
        return builder.select(builder.fcmp_ordered(">", value, high), high, value)

    return vector(vector, low, high), codegen


@intrinsic
def between(_context, vector, place, low, high):
    """The lanes whose place is above low and below high, or NaN; zeros in the others."""

    def codegen(_context, builder, _sig, args):
        value, place, low, high = args
        above, below = builder.fcmp_unordered(">", place, low), builder.fcmp_unordered("<", place, high)
        return builder.select(builder.and_(above, below), value, ir.Constant(value.type, None))

    return vector(vector, place, low, high), codegen


@intrinsic
def total(_context, vector):
    """The sum of all lanes, of neighbours first."""

    def codegen(_context, builder, _sig, args):
        number, kind = args[0].type.element, args[0].type
        name = f"llvm.vector.reduce.fadd.v{vector.lanes}{STORED[vector.dtype][1]}"
        add = function(builder, name, number, [number, kind])
        return builder.call(add, [ir.Constant(number, -0.0), args[0]], fastmath=("reassoc",))

    return vector.dtype(vector), codegen
