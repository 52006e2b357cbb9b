"""Vectors of numbers as values that a kernel computes with: one cache line each, in the type of computation.

A kernel says itself what is summed in which lane, so its sums are the same wherever arrays lie and however a compiler
cuts loops. LLVM splits these vectors into the registers that the processor has. `memory.py` reads and writes them.
"""

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.datamodel import models
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, register_model

from normkit.backends.numba import processor
from normkit.backends.numba.record import LINE

INDEX = ir.IntType(32)
# How a number of a stored type is read: its type in LLVM, and that type in the name of an operation on vectors.
STORED = {
    types.float64: (ir.DoubleType(), "f64"),
    types.float32: (ir.FloatType(), "f32"),
    types.uint16: (ir.IntType(16), "i16"),  # bfloat16
    types.int16: (ir.HalfType(), "f16"),  # float16
}


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


def mask_of(builder: Any, count: Any, lanes: int) -> Any:
    """True in the first `count` lanes."""
    places = ir.Constant(ir.VectorType(INDEX, lanes), list(range(lanes)))
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
    """a · b + c, rounded once where the processor has an instruction for it."""

    def codegen(_context, builder, _sig, args):
        if not processor.has("fma"):
            return builder.fadd(builder.fmul(args[0], args[1]), args[2])
        kind = args[0].type
        name = f"llvm.fma.v{a.lanes}{STORED[a.dtype][1]}"
        return builder.call(function(builder, name, kind, [kind] * 3), args)

    return a(a, b, c), codegen


@intrinsic
def first(_context, vector, count):
    """The first `count` lanes; zeros in the others."""

    def codegen(_context, builder, _sig, args):
        zeros = ir.Constant(args[0].type, None)
        return builder.select(mask_of(builder, args[1], vector.lanes), args[0], zeros)

    return vector(vector, types.int64), codegen


@intrinsic
def joined(_context, vector, other, count):
    """The first `count` lanes, and of the other vector those behind them."""

    def codegen(_context, builder, _sig, args):
        return builder.select(mask_of(builder, args[2], vector.lanes), args[0], args[1])

    return vector(vector, vector, types.int64), codegen


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
