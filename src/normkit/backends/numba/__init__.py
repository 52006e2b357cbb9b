"""CPU kernels in Numba. They take addresses and sizes, and know nothing of torch.

``runs`` walks along long runs of S, ``columns`` sums vectors of columns down the rows; :func:`forward` and
:func:`backward` choose between the two by the shape of the view alone, and cut the work into pieces that do not depend
on the number of threads: the same input gives the same bits whatever it is.
"""

from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.backends.numba import columns, runs
from normkit.backends.numba.jit import Arguments
from normkit.backends.numba.team import run_team
from normkit.spec import View

# How numbers are stored, and the type they are computed in. Half types are read as integers of their own size.
STORAGES: dict[str, tuple[type, type]] = {
    "float64": (np.float64, np.float64),
    "float32": (np.float32, np.float32),
    "bfloat16": (np.uint16, np.float32),
    "float16": (np.int16, np.float32),
}

_RUN = 16  # from this length of S on, a run is walked rather than summed down
_SERIAL = 32768  # numbers that one thread normalizes faster than a team can be woken
_STREAM = 16 << 20  # bytes of output from which it is written past the caches, which could not keep it
_TILE = 1024  # columns that are summed at once
_CHUNK = 128  # rows of a tile that are summed before they are merged
_PARTS = 64  # into how many parts the gradients of weight and bias are split
_SUMMED = 128  # runs, at most, whose gradients of weight and bias are summed in the compute type: then into more parts


@dataclass(frozen=True)
class Plan:
    """How one view is cut up: which kernel, and (columns) the rows of a chunk, the columns of a tile, rows folded."""

    walk: bool
    chunk: int
    tile: int
    fold: int


@lru_cache(maxsize=1024)
def plan(view: View) -> Plan:
    """Cut up a view."""
    a, r, k, s = view.shape
    a_period, _, r_step, _, s_run, s_step = view.affine_steps
    if r_step == 0 and (s >= _RUN or (r == 1 and k == 1)):
        by_place = s_step != 0 and s_run == 1
        # one task adds up all that goes into its part of dweight, so a chunk holds whole periods
        return Plan(True, min(-(-a // a_period // _PARTS), _SUMMED) * a_period if by_place else 1, 1, 1)
    width = k * s
    if r_step != 0:
        return Plan(False, r, -(-width // -(-width // (2 * _TILE))), 1)
    if width > 4 * _TILE:
        return Plan(False, min(r, _CHUNK), max(1, _TILE // s) * s, 1)
    fold = max(1, min(_TILE // width, r))
    return Plan(False, min(r, _CHUNK * fold), width, fold)


_compiling = Lock()


@lru_cache(maxsize=64)
def _compiled(walk: bool, backwards: bool, dtype: str) -> Any:
    """A kernel; threads that need it at once wait for the first of them to compile it."""
    with _compiling:
        return _compile(walk, backwards, dtype)


@lru_cache(maxsize=64)
def _compile(walk: bool, backwards: bool, dtype: str) -> Any:
    family = runs if walk else columns
    return (family.backward if backwards else family.forward)(*STORAGES[dtype])


def _arguments(view: View, p: Plan, affine_size: int) -> Arguments:
    a, r, k, s = view.shape
    arguments = Arguments(a=a, r=r, k=k, s=s, chunk=p.chunk, tile=p.tile, fold=p.fold, affine_size=affine_size)
    steps = view.affine_steps if affine_size else (1, 0, 0, 0, max(s, 1), 0)
    (arguments.a_period, arguments.a_step, arguments.r_step, arguments.k_step, arguments.s_run, arguments.s_step) = (
        steps
    )
    return arguments


def _run(walk: bool, backwards: bool, dtype: str, arguments: Arguments, threads: int) -> None:
    """Run a kernel in as few launches as the shape allows."""
    function = _compiled(walk, backwards, dtype).address
    size = arguments.a * arguments.r * arguments.k * arguments.s
    arguments.stream = size * np.dtype(STORAGES[dtype][0]).itemsize >= _STREAM
    threads = 1 if size < _SERIAL else threads
    if not walk:
        tiles = -(-arguments.k * arguments.s // arguments.tile)
        one_task_each = arguments.chunk >= arguments.r or (tiles == 1 and arguments.a >= threads)
        if not one_task_each:
            for phase in (3,) if arguments.given and not backwards else (1, 2, 3):
                arguments.phase = phase
                run_team(function, arguments, threads)
            return
    run_team(function, arguments, threads)


def forward(
    view: View,
    dtype: str,
    x: int,
    y: int,
    weight: int,
    bias: int,
    mean: int,
    var: int,
    rstd: int,
    *,
    eps: float,
    centred: bool,
    given: bool,
    affine_size: int,
    threads: int,
) -> None:
    """Normalize.

    Args:
        view: The view of x and y.
        dtype: A key of STORAGES.
        x, y: Addresses of A · R · K · S numbers in memory order.
        weight, bias: Addresses of affine_size numbers of the compute type (ignored where that is 0).
        mean, var, rstd: Addresses of A · K numbers of the compute type; mean and var are read where `given`, else
            written; rstd is always written.
        affine_size: How many weights there are; 0 for none.
        threads: How many threads may work on it.
    """
    p = plan(view)
    arguments = _arguments(view, p, affine_size)
    a, r, k, s = view.shape
    keep = _affine(arguments, dtype, weight, bias)
    arguments.x, arguments.y, arguments.mean, arguments.var, arguments.rstd = x, y, mean, var, rstd
    arguments.eps, arguments.centred, arguments.given = eps, centred, given
    if not p.walk:
        partial = np.empty((a, 2, -(-r // p.chunk), k * s))
        coefficients: NDArray[Any] = np.empty(a * k, STORAGES[dtype][1])
        arguments.partial, arguments.coefficients = partial.ctypes.data, coefficients.ctypes.data
    _run(p.walk, False, dtype, arguments, threads)
    del keep


def backward(
    view: View,
    dtype: str,
    x: int,
    dy: int,
    dx: int,
    weight: int,
    mean: int,
    rstd: int,
    *,
    centred: bool,
    given: bool,
    affine_size: int,
    threads: int,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """The gradients of :func:`forward`: writes dx (skipped where its address is 0), returns dweight and dbias.

    dweight and dbias have affine_size numbers of the compute type, in the memory order of the view.
    """
    p = plan(view)
    arguments = _arguments(view, p, affine_size)
    a, r, k, s = view.shape
    compute = STORAGES[dtype][1]
    keep = _affine(arguments, dtype, weight, weight)
    arguments.x, arguments.dy, arguments.dx, arguments.mean, arguments.rstd = x, dy, dx, mean, rstd
    arguments.centred, arguments.given = centred, given
    if p.walk:
        parts = -(-a // max(p.chunk, arguments.a_period))
    else:
        parts = a * -(-k * s // p.tile) if arguments.r_step else a
        partial = np.empty((a, 3, -(-r // p.chunk), k * s))
        coefficients: NDArray[Any] = np.empty((3, a * k), compute)
        arguments.partial, arguments.coefficients = partial.ctypes.data, coefficients.ctypes.data
    dweights = np.zeros((2, parts, arguments.affine_size), compute)
    arguments.dweight = dweights.ctypes.data
    _run(p.walk, True, dtype, arguments, threads)
    del keep
    dweight, dbias = dweights.sum(axis=1, dtype=np.float64).astype(compute)
    return dweight, dbias


def _affine(arguments: Arguments, dtype: str, weight: int, bias: int) -> list[NDArray[Any]]:
    """Set weight and bias, ones and zeros where there are none; returns the arrays that must outlive the call."""
    size = arguments.affine_size = max(arguments.affine_size, 1)
    compute = STORAGES[dtype][1]
    keep = [] if weight and bias else [np.ones(size, compute), np.zeros(size, compute)]
    arguments.weight = weight or keep[0].ctypes.data
    arguments.bias = bias or keep[1].ctypes.data
    return keep
