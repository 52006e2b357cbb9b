"""Threads: the calling one runs a kernel alone, or together with others.

The others are torch's own OpenMP threads, reached through the runtime that torch has loaded. A second pool would
compete with torch's workers, which go on spinning for a while after each parallel operation: measured, a kernel in a
pool of its own took twice as long right after a torch operation as in torch's. Where no OpenMP runtime can be reached,
and in a forked child (whose parent's OpenMP threads do not exist any more), Python threads do the work: kernels run
without the interpreter lock.
"""

import ctypes
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from struct import Struct
from typing import Any, Protocol

from llvmlite import binding

from normkit.backends.numba.kernel_cache import address
from normkit.backends.numba.record import PHASES

_Signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_FIRST = Struct("2q")  # of a RECORD: function and phases
_PHASES = [tuple(phase for phase in range(PHASES) if bits >> phase & 1) for bits in range(1 << PHASES)]
_PID = os.getpid()


class Layer(Protocol):
    """A threading layer: it runs a kernel on all parts of its work and returns when all are done."""

    def __call__(self, record: bytes, num_threads: int) -> None:
        """Run the kernel that a RECORD names with this many threads."""


def run_kernel(record: bytes, num_threads: int) -> None:
    """Run the kernel that a RECORD names, phase after phase; return when all of its work is done."""
    if num_threads <= 1:
        function, phases = _FIRST.unpack_from(record)
        kernel = _function(function)
        for phase in _PHASES[phases]:
            kernel(record, 0, 1, phase)
    else:
        _layer()(record, num_threads)


def threading_layer() -> str:
    """Return the name of the threading layer here: "openmp" (torch's threads) or "threads" (Python's)."""
    return "threads" if _layer() is _with_threads else "openmp"


@lru_cache(maxsize=256)
def _function(address: int) -> Any:
    return _Signature(address)


def _with_threads(record: bytes, num_threads: int) -> None:
    function, phases = _FIRST.unpack_from(record)
    kernel = _function(function)
    for phase in _PHASES[phases]:
        others: list[Future[None]] = [
            _pool(num_threads - 1).submit(kernel, record, part, num_threads, phase) for part in range(1, num_threads)
        ]
        kernel(record, 0, num_threads, phase)
        for other in others:
            other.result()


@lru_cache(maxsize=1)
def _pool(num_threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_threads, thread_name_prefix="normkit")


@lru_cache(maxsize=1)
def _layer() -> Layer:
    parallel = _parallel() if os.getpid() == _PID else None  # else it was forked
    if parallel is None:
        return _with_threads
    start = address("thread_start")

    def openmp(record: bytes, num_threads: int) -> None:
        parallel(start, record, num_threads, 0)

    return openmp


def _parallel() -> Any:
    """Return OpenMP's entry point in the runtime that this process has loaded, or None."""
    try:
        runtime = ctypes.CDLL(None)
        for name in ("omp_get_thread_num", "omp_get_num_threads", "GOMP_barrier"):
            binding.add_symbol(name, ctypes.cast(getattr(runtime, name), ctypes.c_void_p).value)
        parallel = runtime.GOMP_parallel
    except (AttributeError, OSError, TypeError):  # another runtime, or a platform without a global symbol table
        return None
    parallel.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    parallel.restype = None
    return parallel


def _after_fork() -> None:
    _layer.cache_clear()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
