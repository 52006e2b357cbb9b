"""Who runs a kernel: the calling thread alone, or a team of threads.

The team is torch's own OpenMP team, reached through the runtime that torch has loaded. A second pool of threads would
compete with torch's workers, which go on spinning for a while after each parallel operation: measured, a kernel in a
pool of its own took twice as long right after a torch operation as in torch's team. Where no OpenMP runtime can be
reached, and in a forked child (whose parent's OpenMP threads do not exist any more), Python threads do the work:
kernels run without the interpreter lock.
"""

import ctypes
import os
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from struct import Struct
from typing import Any, Protocol

from llvmlite import binding

from normkit.backends.numba.objects import address
from normkit.backends.numba.record import PHASES

_Signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_FIRST = Struct("2q")  # of a RECORD: function and phases


class Team(Protocol):
    """Runs a kernel on all parts of its work and returns when all are done."""

    def __call__(self, record: bytes, threads: int) -> None:
        """Run the kernel that a RECORD names with this many threads."""


def run_team(record: bytes, threads: int) -> None:
    """Run the phases that a RECORD names of its kernel, one after the other; returns when all of its work is done."""
    if threads <= 1:
        kernel, phases = _kernel_of(record)
        for phase in phases:
            kernel(record, 0, 1, phase)
    else:
        _team()(record, threads)


def _kernel_of(record: bytes) -> tuple[Any, tuple[int, ...]]:
    """The kernel of a record, and its phases."""
    function, phases = _FIRST.unpack_from(record)
    return _function(function), _phases(phases)


@lru_cache(maxsize=1 << PHASES)
def _phases(bits: int) -> tuple[int, ...]:
    return tuple(phase for phase in range(PHASES) if bits >> phase & 1)


def team_name() -> str:
    """How work is spread over threads here: "openmp" (torch's team) or "threads" (Python's)."""
    return "threads" if _team() is _with_threads else "openmp"


@lru_cache(maxsize=256)
def _function(address: int) -> Any:
    return _Signature(address)


def _with_threads(record: bytes, threads: int) -> None:
    kernel, phases = _kernel_of(record)
    for phase in phases:
        others: list[Future[None]] = [
            _pool(threads - 1).submit(kernel, record, part, threads, phase) for part in range(1, threads)
        ]
        kernel(record, 0, threads, phase)
        for other in others:
            other.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="normkit")


@lru_cache(maxsize=1)
def _team() -> Team:
    parallel = None if _forked else _parallel()
    if parallel is None:
        return _with_threads
    start = address("team_start", "team_start")

    def openmp(record: bytes, threads: int) -> None:
        parallel(start, record, threads, 0)

    return openmp


def _parallel() -> Any:
    """OpenMP's entry point in the runtime that this process has loaded, or None."""
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


_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True
    _team.cache_clear()
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
