"""SIMD vectors as values of a kernel: one cache line each, in the compute dtype.

A kernel states itself what is summed in which lane, so its sums are the same wherever arrays lie and however a compiler
cuts loops. LLVM splits these vectors into the registers of the processor. `memory.py` loads and stores them.
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
    """The Numba type of bfloat16 elements whose vectors hold those of even offsets first, then those of odd ones.

    Two neighbours are one word of 32 bits, so a vector becomes two of float32, and they a vector again, without moving
    anything between lanes. Only loops that treat all elements alike can load them so.
    """

    bitwidth = 16

    def __init__(self) -> None:
        super().__init__(name="Pairs")


@register_model(Pairs)
class _PairsModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Pairs) -> None:
        super().__init__(manager, kind, ir.IntType(16))


PAIRS = Pairs()
# The LLVM type of each stored dtype, and that type in the name of an operation on vectors
STORED = {
    types.float64: (ir.DoubleType(), "f64"),
    types.float32: (ir.FloatType(), "f32"),
    types.uint16: (ir.IntType(16), "i16"),  # bfloat16
    types.int16: (ir.HalfType(), "f16"),  # float16
    PAIRS: (ir.IntType(16), "i16"),  # bfloat16
}


def pairwise_storage(storage: Any) -> Any:
    """Return the stored dtype for loops that treat all elements alike: PAIRS where it is faster."""
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
    """Implement an operator of Python for two vectors."""

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


def constant(value: int, lanes: int) -> Any:
    """Return a vector of the same INDEX in every lane."""
    return ir.Constant(ir.VectorType(INDEX, lanes), [value] * lanes)


def _broadcast(builder: Any, value: Any, lanes: int) -> Any:
    """Return a vector of a value in every lane."""
    undefined = ir.Constant(ir.VectorType(value.type, lanes), ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(undefined, value, INDEX(0)), undefined, constant(0, lanes))


def mask_of(builder: Any, count: Any, lanes: int, stored: Any = None) -> Any:
    """Return a mask of the first `count` elements of a vector of a stored dtype; of lanes, if there is none."""
    order = [*range(0, lanes, 2), *range(1, lanes, 2)] if stored == PAIRS else list(range(lanes))
    offsets = ir.Constant(ir.VectorType(INDEX, lanes), order)
    return builder.icmp_signed("<", offsets, _broadcast(builder, builder.trunc(count, INDEX), lanes))


def function(builder: Any, name: str, result: Any, parameters: list[Any]) -> Any:
    """Declare a function of LLVM or of the C library."""
    return get_or_insert_function(builder.module, ir.FunctionType(result, parameters), name)


@intrinsic
def lanes(_context, like):
    """Return how many elements of this dtype a vector holds."""
    count = LINE * 8 // like.bitwidth

    def codegen(_context, _builder, _sig, _args):
        return ir.IntType(64)(count)

    return types.int64(like), codegen


@intrinsic
def splat(_context, value):
    """Return a vector of the same value in every lane."""
    vector = Vector(value)

    def codegen(_context, builder, _sig, args):
        return _broadcast(builder, args[0], vector.lanes)

    return vector(value), codegen


@intrinsic
def fma(_context, a, b, c):
    """Return A · b + c, rounded once where the processor has an instruction for it."""

    def codegen(_context, builder, _sig, args):
        if not processor.has("fma"):
            return builder.fadd(builder.fmul(args[0], args[1]), args[2])
        kind = args[0].type
        name = f"llvm.fma.v{a.lanes}{STORED[a.dtype][1]}"
        return builder.call(function(builder, name, kind, [kind] * 3), args)

    return a(a, b, c), codegen


@intrinsic
def mask_tail(_context, array, vector, count):
    """Keep the first `count` elements of a vector loaded from an array; zero the others."""

    def codegen(_context, builder, _sig, args):
        _, value, count = args
        mask = mask_of(builder, count, vector.lanes, array.dtype)
        return builder.select(mask, value, ir.Constant(value.type, None))

    return vector(array, vector, types.int64), codegen


@intrinsic
def blend(_context, array, vector, other, count):
    """Take the first `count` elements from one vector loaded from an array, the others from another."""

    def codegen(_context, builder, _sig, args):
        _, value, other, count = args
        return builder.select(mask_of(builder, count, vector.lanes, array.dtype), value, other)

    return vector(array, vector, vector, types.int64), codegen


@intrinsic
def canonicalize_nan(_context, array, value):
    """Return a value with the usual bits if it is NaN: those of some NaN would be rounded to zero in this array."""

    def codegen(_context, builder, _sig, args):
        _, value = args
        if array.dtype != PAIRS:
            return value
        return builder.select(builder.fcmp_ordered("ord", value, value), value, ir.Constant(value.type, float("nan")))

    return value(array, value), codegen


@intrinsic
def clamp_vector(_context, vector, lower, upper):
    """Clamp each lane between lower and upper; NaN stays NaN."""

    def codegen(_context, builder, _sig, args):
        value, lower, upper = args
        value = builder.select(builder.fcmp_ordered("<", value, lower), lower, value)
        return builder.select(builder.fcmp_ordered(">", value, upper), upper, value)

    return vector(vector, lower, upper), codegen


@intrinsic
def mask_between(_context, vector, key, lower, upper):
    """Keep the lanes whose key is above lower and below upper, or NaN; zero the others."""

    def codegen(_context, builder, _sig, args):
        value, key, lower, upper = args
        above, below = builder.fcmp_unordered(">", key, lower), builder.fcmp_unordered("<", key, upper)
        return builder.select(builder.and_(above, below), value, ir.Constant(value.type, None))

    return vector(vector, key, lower, upper), codegen


@intrinsic
def reduce_add(_context, vector):
    """Sum all lanes, neighbours first."""

    def codegen(_context, builder, _sig, args):
        element, kind = args[0].type.element, args[0].type
        name = f"llvm.vector.reduce.fadd.v{vector.lanes}{STORED[vector.dtype][1]}"
        add = function(builder, name, element, [element, kind])
        return builder.call(add, [ir.Constant(element, -0.0), args[0]], fastmath=("reassoc",))

    return vector.dtype(vector), codegen
