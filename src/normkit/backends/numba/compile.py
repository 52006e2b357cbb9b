"""How kernels are compiled and called.

A kernel is a C function ``(record, part, parts, phase)``. Its pointers and sizes come in one record (`record.py`), of
which a call packs the beginning, so that calling it costs a few microseconds; ``part`` of ``parts`` says which share of
the work is its own, and ``phase`` which of the steps that its threads take together.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import from_dtype, njit, types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from normkit.backends.numba.kernel_cache import ENTRY
from normkit.backends.numba.record import RECORD

Kernel = Callable[..., Any]

# A piece of a kernel cannot be called from Python: what would let it takes time to compile.
PIECE = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
INLINE = {**PIECE, "forceinline": True}  # and so for an overload


def jit(function: Kernel) -> Kernel:
    """Compile a piece of a kernel; it computes exactly what it says, in every place that it is copied to."""
    compiled: Kernel = njit(**PIECE)(function)
    return compiled


def inline(function: Kernel) -> Kernel:
    """`jit` of a small piece that is in the way of vectors if it is called."""
    compiled: Kernel = njit(**INLINE)(function)
    return compiled


KERNEL = types.void(types.voidptr, types.int64, types.int64, types.int64)


@global_compiler_lock
def kernel(function: Kernel, signature: Any = KERNEL) -> bytes:
    """Compile a kernel, or what calls it, to the object code of a C function.

    It needs nothing of Numba when it runs: it makes no arrays that are counted, and raises no exceptions.
    """
    (compiled,) = njit(signature, **PIECE)(function).overloads.values()
    context = compiled.target_context
    library = context.codegen().create_library(function.__name__)
    library.enable_object_caching()
    library.add_linking_library(compiled.library)
    module = library.create_ir_module(function.__name__)
    kinds = [context.get_value_type(kind) for kind in signature.args]
    entry = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), ENTRY)
    builder = ir.IRBuilder(entry.append_basic_block())
    called = context.declare_function(module, compiled.fndesc)
    context.call_conv.call_function(builder, called, signature.return_type, signature.args, entry.args)
    builder.ret_void()
    library.add_ir_module(module)
    library.finalize()
    *_, (code, _) = library.serialize_using_object_code()
    result: bytes = code
    return result


@intrinsic
def record(_context: Any, address: Any) -> Any:
    """The RECORD at an address."""
    kind = from_dtype(RECORD)

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], context.get_value_type(kind))

    return kind(address), codegen


@intrinsic
def pointer(_context: Any, address: Any, dtype: Any) -> Any:
    """An address as a pointer to numbers of a type, which can be indexed; unlike an array it is passed as one word."""
    kind = types.CPointer(dtype.instance_type)

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(types.int64, dtype), codegen


@jit
def tensors_of_forward(g, storage, compute):
    """What a forward kernel reads and writes: x, y, weight, bias; mean, var, rstd and the running statistics."""
    statistics = pointer(g.mean, compute), pointer(g.var, compute), pointer(g.rstd, compute)
    running = pointer(g.running_mean, compute), pointer(g.running_var, compute)
    affine = pointer(g.weight, compute), pointer(g.bias, compute)
    return pointer(g.x, storage), pointer(g.y, storage), *affine, statistics + running


@intrinsic
def cast(_context: Any, value: Any, like: Any) -> Any:
    """Value in the type of like."""

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], value, like)

    return like(value, like), codegen
