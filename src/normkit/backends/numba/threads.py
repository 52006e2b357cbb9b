"""Threads: the calling one runs a kernel alone, or together with others.

The others are torch's own OpenMP threads, reached through the runtime that torch has loaded. A second pool would
compete with torch's workers, which go on spinning for a while after each parallel operation: measured, a kernel in a
pool of its own took twice as long right after a torch operation as in torch's. Where no OpenMP runtime can be reached,
and in a forked child (whose parent's OpenMP threads do not exist any more), Python threads do the work: kernels run
without the interpreter lock.

Neither way leaves a call before all threads are done with it, whatever interrupts the call: the tensors that they write
to are freed soon after.
"""

import ctypes
import os
import sys
from collections import deque
from functools import lru_cache
from itertools import repeat
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final, NamedTuple, Protocol

from llvmlite import binding

from normkit.backends.numba.kernel_cache import address
from normkit.backends.numba.record import FIRST_STRUCT, PHASES

_Signature = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_int64)
_PHASES = [tuple(phase for phase in range(PHASES) if bits >> phase & 1) for bits in range(1 << PHASES)]
_PID = os.getpid()


class Layer(Protocol):
    """A threading layer: it runs a kernel on all parts of its work and returns when all are done."""

    def __call__(self, record: bytes, num_threads: int) -> None:
        """Run the kernel that a RECORD names with this many threads."""


def run_kernel(record: bytes, num_threads: int) -> None:
    """Run the kernel that a RECORD names, phase after phase; return when all of its work is done."""
    if num_threads <= 1:
        function, phases = FIRST_STRUCT.unpack_from(record)
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
    function, phases = FIRST_STRUCT.unpack_from(record)
    kernel = _function(function)
    if sys.is_finalizing():  # the other threads have ended
        for phase in _PHASES[phases]:
            for part in range(num_threads):
                kernel(record, part, num_threads, phase)
        return
    put = _team().with_threads(num_threads - 1).put
    latches = _take_latches(num_threads - 1)
    for phase in _PHASES[phases]:
        parts = [_Part(kernel, record, part, num_threads, phase, latch) for part, latch in enumerate(latches, 1)]
        start, wait = map(put, parts), map(_acquire, latches, repeat(1))
        # An interrupt is raised after a call, or where a loop or a function of Python begins. So none comes while `any`
        # calls all that a map holds (None each time), nor between an exception here and the wait.
        try:
            any(start)
            kernel(record, 0, num_threads, phase)
        finally:
            any(wait)
    _idle_latches.extend(latches)


class _Part(NamedTuple):
    """What one thread does in one phase of a kernel; it opens the latch when it is done."""

    kernel: Any
    record: bytes
    part: int
    num_threads: int
    phase: int
    latch: int


class _Team:
    """Python threads that wait for parts to do."""

    def __init__(self) -> None:
        self._parts: SimpleQueue[_Part] = SimpleQueue()
        self._size = 0
        self._grows = Lock()

    def with_threads(self, number: int) -> "SimpleQueue[_Part]":
        """Return the queue of parts, which at least this many threads take from."""
        if self._size < number:
            with self._grows:
                while self._size < number:
                    Thread(target=_work, args=(self._parts,), name="normkit", daemon=True).start()
                    self._size += 1
        return self._parts


def _work(parts: "SimpleQueue[_Part]") -> None:
    while True:
        kernel, record, part, num_threads, phase, latch = parts.get()
        kernel(record, part, num_threads, phase)
        _release(latch)


@lru_cache(maxsize=1)
def _team() -> _Team:
    return _Team()


# A latch is a lock of the interpreter that is held until a part is done. Python's own are no use: waiting for one ends
# with an exception where a signal comes.
_allocate = ctypes.CFUNCTYPE(ctypes.c_void_p)(("PyThread_allocate_lock", ctypes.pythonapi))
_acquire = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)(("PyThread_acquire_lock", ctypes.pythonapi))
_release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(("PyThread_release_lock", ctypes.pythonapi))
_idle_latches: Final[deque[int]] = deque()


def _take_latches(number: int) -> list[int]:
    """Return latches that nobody else uses, all of them closed; those of a call that was interrupted do not return."""
    latches: list[int] = []
    while len(latches) < number:
        try:
            latches.append(_idle_latches.pop())
        except IndexError:
            latch = _allocate()
            _acquire(latch, 1)
            latches.append(latch)
    return latches


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
    _team.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
