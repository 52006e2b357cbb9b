"""How kernels are compiled.

A kernel is a C function ``(record, part, parts, phase)``. Its pointers and sizes come in one record (`record.py`), of
which a call packs the beginning, so that calling it costs a few microseconds; ``part`` of ``parts`` is the share of
the work that the thread takes, and ``phase`` the step that all threads take together.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import from_dtype, njit, types
from numba.core.compiler_lock import global_compiler_lock
from numba.extending import intrinsic

from normkit.backends.numba.kernel_cache import ENTRY
from normkit.backends.numba.record import RECORD

Function = Callable[..., Any]

# A function of a kernel cannot be called from Python: the wrappers for that take time to compile.
OPTIONS = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
INLINE = {**OPTIONS, "forceinline": True}  # and so for an overload


def jit(function: Function) -> Function:
    """Compile a function of a kernel; it computes exactly what it states, wherever it is inlined."""
    compiled: Function = njit(**OPTIONS)(function)
    return compiled


def inline(function: Function) -> Function:
    """Compile a small function that is always inlined: a call would pass vectors through memory."""
    compiled: Function = njit(**INLINE)(function)
    return compiled


KERNEL = types.void(types.voidptr, types.int64, types.int64, types.int64)


@global_compiler_lock
def kernel(function: Function, signature: Any = KERNEL) -> bytes:
    """Compile a kernel, or what calls it, to the object code of a C function.

    It needs nothing of Numba when it runs: it makes no arrays that are counted, and raises no exceptions.
    """
    (compiled,) = njit(signature, **OPTIONS)(function).overloads.values()
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


def record_reader(dtype: Any) -> Any:
    """Return a function of a kernel that takes an address and returns the record of this dtype there."""
    kind = from_dtype(dtype)

    @intrinsic
    def record(_context: Any, address: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(kind))

        return kind(address), codegen

    return record


record = record_reader(RECORD)


@intrinsic
def pointer(_context: Any, address: Any, dtype: Any) -> Any:
    """Return a pointer to elements of a dtype, which can be indexed; unlike an array it is passed as one word."""
    kind = types.CPointer(dtype.instance_type)

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(kind))

    return kind(types.int64, dtype), codegen


@intrinsic
def cast(_context: Any, value: Any, like: Any) -> Any:
    """Convert a value to the dtype of `like`."""

    def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[0], value, like)

    return like(value, like), codegen


@jit
def forward_operands(g, storage, compute):
    """Return pointers to what a forward kernel reads and writes: x, y, (weight, bias), stats, running stats."""
    affine = pointer(g.weight, compute), pointer(g.bias, compute)
    stats = pointer(g.mean, compute), pointer(g.var, compute), pointer(g.rstd, compute)
    running = pointer(g.running_mean, compute), pointer(g.running_var, compute)
    return pointer(g.x, storage), pointer(g.y, storage), affine, stats, running
