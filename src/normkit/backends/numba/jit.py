"""How kernels are compiled and called.

A kernel is a C function ``(arguments, part, parts, phase)``. Its pointers and sizes come in one :data:`RECORD`, of
which a call packs the beginning, so that calling it costs a few microseconds; ``part`` of ``parts`` says which share of
the work is its own, and ``phase`` which of the steps that its threads take together.
"""

import hashlib
import logging
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from struct import Struct
from typing import Any

import numpy as np
from numba import cfunc, njit, types
from numba.extending import intrinsic, overload

logger = logging.getLogger("normkit")

Kernel = Callable[..., Any]

_SLOW_COMPILE = 2.0  # seconds; a first use that takes longer is worth a line in the log


# What a kernel is told by a call: addresses, and a few numbers,
ADDRESSES = (
    "function",  # the kernel's own, for the team that runs it, which reads these two only,
    "phases",  # to be run: a bit each
    "x", "y", "residual", "dy", "dx", "weight", "bias", "mean", "var", "rstd",  # data and statistics,
    "shift",  # and what is added last, which says where bounds hold a result; 0: there are none
    "running_mean", "running_var", "batches",  # to be moved towards the statistics of a batch, and counted; 0: none
    "partial", "coefficients",  # scratch: sums of parts, and what follows from them
    "dweight", "dbias", "dweights",  # gradients of weight and bias, and both by part
)  # fmt: skip
NUMBERS = ("eps", "momentum", "low", "high")
# and by the sort of calls that it is one of.
SIZES = (
    "a", "r", "k", "s",  # the view
    "a_period", "a_step", "r_step", "k_step", "s_run", "s_step", "affine_size",  # where a weight lies
    "affine_parts", "chunk", "tile", "fold",  # how the work is cut up
    "centred", "given", "stream", "turned",
    "together",  # bytes of input that neighbouring units may have together where each lies in many places
)  # fmt: skip
OF_CALL, OF_SORT = Struct(f"{len(ADDRESSES)}q{len(NUMBERS)}d"), Struct(f"{len(SIZES)}q")
RECORD = np.dtype(
    [
        *((name, np.int64) for name in ADDRESSES),
        *((name, np.float64) for name in NUMBERS),
        *((name, np.int64) for name in SIZES),
    ],
    align=True,
)


# A piece of a kernel cannot be called from Python: what would let it takes time to compile.
PIECE = {"error_model": "numpy", "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
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


def kernel(function: Kernel, signature: Any = KERNEL) -> Any:
    """Compile a kernel, or what calls it, to a C function, cached on disk where some disk can be written."""
    began = time.perf_counter()
    # Numba's cache sees changes of the file that holds the kernel only; the name tells it of all the others.
    function.__qualname__ += f"_{_sources()}"
    try:
        compiled = cfunc(signature, cache=True, error_model="numpy")(function)
    except Exception as error:  # no writable place for the cache, or a damaged one: compile for this process alone
        logger.info("kernels are compiled anew in this process, as they cannot be cached: %s", error)
        compiled = cfunc(signature, error_model="numpy")(function)
    took = time.perf_counter() - began
    if took > _SLOW_COMPILE:
        logger.info("compiled kernel %s in %.1f s; the next process loads it from the cache", function.__name__, took)
    return compiled


@lru_cache(maxsize=1)
def _sources() -> str:
    """A digest of everything that a kernel may be made of."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


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


def cast(value: float, like: Any) -> Any:
    """value in the type of like."""
    raise NotImplementedError("compiled code only")


@overload(cast)
def _cast(value, like):
    if like == types.float32:
        return lambda value, like: np.float32(value)
    return lambda value, like: np.float64(value)
