"""How kernels are compiled, and how they read and write numbers of any type.

A kernel is a C function ``(arguments, part, parts)``. Its pointers and sizes come in one :class:`Arguments` record, so
that calling it costs a few microseconds, and ``part`` of ``parts`` says which share of the work is its own.

float32 and float64 are computed in their own type. Half types arrive as 16-bit integers (uint16: bfloat16, int16:
float16), and :func:`load` and :func:`store` convert to and from float32, in which they are computed.
"""

import ctypes
import hashlib
import logging
import platform
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from llvmlite import ir
from numba import cfunc, config, njit, types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic, overload

logger = logging.getLogger("normkit")

Kernel = Callable[..., Any]

# Sums may be split over vector lanes; a difference that must not be regrouped goes through `minus` (no fast math).
_SUM = {"reassoc", "contract", "nsz"}
_SLOW_COMPILE = 2.0  # seconds; a first use that takes longer is worth a line in the log


class Arguments(ctypes.Structure):
    """All that a kernel is told: addresses, sizes of the view, places of weights, and a few numbers."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in (
            "function",  # the kernel's own address, for the team that runs it
            "x", "y", "dy", "dx", "weight", "bias", "mean", "var", "rstd",  # data and statistics
            "partial", "dweight", "coefficients",  # scratch: sums of parts, gradients of weight and bias by part
            "a", "r", "k", "s",  # the view
            "a_period", "a_step", "r_step", "k_step", "s_run", "s_step", "affine_size",  # where a weight lies
            "chunk", "tile", "fold", "phase",  # how the work is cut up
            "centred", "given", "stream",
        )),
        ("eps", ctypes.c_double),
    ]  # fmt: skip


RECORD = np.dtype(Arguments)


def jit(function: Kernel) -> Kernel:
    """Compile a piece of a kernel with exact floating-point semantics (contraction to fma allowed)."""
    compiled: Kernel = njit(error_model="numpy", fastmath={"contract"})(function)
    return compiled


def jit_sum(function: Kernel) -> Kernel:
    """Compile a loop that only sums, so that the sum may be kept in vector lanes."""
    compiled: Kernel = njit(error_model="numpy", fastmath=_SUM)(function)
    return compiled


def kernel(function: Kernel) -> Any:
    """Compile a kernel ``(arguments, part, parts)`` to a C function, cached on disk where some disk can be written."""
    began = time.perf_counter()
    # Numba's cache sees changes of the file that holds the kernel only; the name tells it of all the others.
    function.__qualname__ += f"_{_sources()}"
    signature = types.void(types.voidptr, types.int64, types.int64)
    options: dict[str, Any] = {"error_model": "numpy", "fastmath": {"contract"}}
    try:
        compiled = cfunc(signature, cache=True, **options)(function)
    except Exception as error:  # no writable place for the cache, or a damaged one: compile for this process alone
        logger.info("kernels are compiled anew in this process, as they cannot be cached: %s", error)
        compiled = cfunc(signature, **options)(function)
    took = time.perf_counter() - began
    if took > _SLOW_COMPILE:
        logger.info("compiled kernel %s in %.1f s; the next process loads it from the cache", function.__name__, took)
    return compiled


def converts_float16() -> bool:
    """Whether the processor that kernels are compiled for converts float16; without, LLVM would abort the process."""
    features = config.CPU_FEATURES
    if features is None:
        features = get_host_cpu_features()
    return platform.machine().lower() in ("aarch64", "arm64") or "+f16c" in features


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of everything that a kernel may be made of."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@intrinsic
def pointer(_context: Any, address: Any) -> Any:
    """An address as a pointer."""

    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return types.voidptr(types.int64), codegen


def _bitcast(source: Any, target: Any) -> Any:
    """An intrinsic that reads the bits of one type as another."""

    @intrinsic
    def cast(context: Any, _value: Any) -> Any:
        def codegen(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], context.get_value_type(target))

        return target(source), codegen

    return cast


_float_of_bits = _bitcast(types.uint32, types.float32)
_bits_of_float = _bitcast(types.float32, types.uint32)


@intrinsic
def _half_to_float(_context: Any, _bits: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.fpext(builder.bitcast(arguments[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.int16), codegen


@intrinsic
def _float_to_half(_context: Any, _value: Any) -> Any:
    def codegen(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.bitcast(builder.fptrunc(arguments[0], ir.HalfType()), ir.IntType(16))

    return types.int16(types.float32), codegen


@njit
def minus(left, right):
    """A difference that the surrounding arithmetic must not take apart or contract."""
    return left - right


def cast(value: float, like: Any) -> Any:
    """value in the type of like."""
    raise NotImplementedError("compiled code only")


@overload(cast)
def _cast(value, like):
    if like == types.float32:
        return lambda value, like: np.float32(value)
    return lambda value, like: np.float64(value)


def load(array: Any, index: int) -> Any:
    """array[index] in the compute type."""
    raise NotImplementedError("compiled code only")


@overload(load)
def _load(array, index):
    if array.dtype == types.uint16:
        return lambda array, index: _float_of_bits(types.uint32(array[index]) << types.uint32(16))
    if array.dtype == types.int16:
        return lambda array, index: _half_to_float(array[index])
    return lambda array, index: array[index]


def store(array: Any, index: int, value: Any) -> None:
    """array[index] = value, rounded to nearest even."""
    raise NotImplementedError("compiled code only")


@overload(store)
def _store(array, index, value):
    if array.dtype == types.uint16:

        def store_bfloat16(array, index, value):
            bits = _bits_of_float(value)
            rounded = bits + types.uint32(0x7FFF) + ((bits >> types.uint32(16)) & types.uint32(1))
            nan = types.uint32(0x7FC00000)
            array[index] = types.uint16((rounded if value == value else nan) >> types.uint32(16))

        return store_bfloat16
    if array.dtype == types.int16:

        def store_float16(array, index, value):
            array[index] = _float_to_half(value)

        return store_float16

    def store_same(array, index, value):
        array[index] = value

    return store_same


# A loop that stores and sums takes its scalar path, and so another order of the sum, where its arrays lie within a few
# vectors of each other. Arrays this long cannot; shorter ones are stored in one loop and summed in another.
SHORT = 256

LINE = 64  # bytes of a cache line
PIECE = 2048  # numbers that are written at once


@intrinsic
def _move_line(_context, target, source):
    """Copy a cache line past the caches; the target must be aligned to it."""

    def codegen(_context, builder, _signature, arguments):
        kind = ir.VectorType(ir.IntType(32), LINE // 4).as_pointer()
        value = builder.load(builder.inttoptr(arguments[1], kind), align=4)
        move = builder.store(value, builder.inttoptr(arguments[0], kind), align=LINE)
        move.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))

    return types.void(types.int64, types.int64), codegen


@intrinsic
def fence(_context):
    """Make what was streamed visible before the kernel returns."""

    def codegen(_context, builder, _signature, _arguments):
        builder.fence("seq_cst")

    return types.void(), codegen


@jit
def stream(buffer, y, start):
    """y[start : start + buffer.size] = buffer, past the caches, whose lines then need not be read before."""
    target = y.ctypes.data + start * y.itemsize
    source = buffer.ctypes.data
    head = min((-target) % LINE // y.itemsize, buffer.size)
    for i in range(head):
        y[start + i] = buffer[i]
    lines = (buffer.size - head) * y.itemsize // LINE
    for line in range(lines):
        offset = head * y.itemsize + line * LINE
        _move_line(target + offset, source + offset)
    for i in range(head + lines * LINE // y.itemsize, buffer.size):
        y[start + i] = buffer[i]


@jit
def target(y, start, size, buffer):
    """Where to write y[start : start + size]: there, or in the buffer that :func:`flush` streams from."""
    return buffer[:size] if buffer.size else y[start : start + size]


@jit
def flush(y, start, size, buffer):
    """Bring what was written to :func:`target` to its place."""
    if buffer.size:
        stream(buffer[:size], y, start)
