"""CPU kernels in Numba. They take addresses and sizes, and know nothing of torch.

``runs`` walks along long runs of S, ``columns`` sums vectors of columns down the rows; :func:`forward` and
:func:`backward` choose between the two by the shape of the view alone, and cut the work into pieces that do not depend
on the number of threads: the same input gives the same bits whatever it is.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from normkit.backends.caches import own_is_large, together
from normkit.backends.numba.objects import address
from normkit.backends.numba.record import ADD_PARTS, LINE, OF_CALL, OF_SORT
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
_STREAM = 24 << 20  # bytes read and written from which an output goes past the caches, which could not keep all
_RAGGED = 2  # times as many, where a line is written in parts: they meet in a cache, or it goes to memory several times
_SOON = 256  # numbers later a gradient of a weight is read again: what it is added to waits for streams before it
_TILE = 2048  # columns, at most, that are summed at once where each row has its own weight
_WIDE = 4096  # columns, at about, of a part of a row that are summed at once elsewhere,
_FOLD_TO = 1536  # and of rows folded into one.
_SAME = 1024  # numbers or a multiple apart, rows compete for the same places of a cache: fewer do, the less they have
_LINES = 32  # in common with it, down to this many: fewer, and rows of a half type do not begin with a line
_CHUNK = 128  # such rows, at most, that are summed before they are merged,
_FOLDED = 32  # and at least, or rather fewer are folded
_ROUND = 8  # where there is one table of rows only, its chunks come in multiples of this: threads share them evenly
_PARTS = 64  # into how many parts the gradients of weight and bias are split
_SUMMED = 128  # runs, at most, whose gradients of weight and bias are summed in the compute type: then into more parts
_FEW = 16  # short runs that make one part even where there are few, as parts take time themselves


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
    by_place = s_step != 0 and s_run == 1
    # sums down rows for each place would be long ones in a run: columns cut them up
    if r_step == 0 and (s >= _RUN or (r == 1 and k == 1)) and not (by_place and r > 1):
        # one task adds up all that goes into its part of dweight, so a chunk holds whole periods
        runs_of_part = min(max(-(-a // a_period // _PARTS), min(_FEW, _SERIAL // s)), _SUMMED)
        return Plan(True, runs_of_part * a_period if by_place else 1, 1, 1)
    width = k * s
    if r_step != 0:
        return Plan(False, r, -(-width // -(-width // _TILE)), 1)
    if width > 2 * _WIDE:
        return Plan(False, min(r, _CHUNK), max(1, _WIDE // s) * s, 1)
    share = _ROUND if a == 1 else 1
    most = max(1, min(_FOLD_TO // width, r // (_FOLDED * share)))
    fold = min(range(most, most // 2, -1), key=lambda fold: _crowding(fold * width))
    chunks = share * -(-r // (share * _CHUNK * fold))
    return Plan(False, fold * -(-r // (chunks * fold)), width, fold)


def _crowding(width: int) -> float:
    """How badly rows of a width lie: how often as many as at best share a place of a cache, or a line."""
    common = math.gcd(width, _SAME)
    return max(common / _LINES, _LINES / common)


def _function(walk: bool, backwards: bool, dtype: str, by_place: bool, clamped: bool, added: bool) -> int:
    """The address of a kernel."""
    special = (*STORAGES[dtype], *((by_place, clamped) if walk else (clamped,)))
    family = "runs" if walk else "columns"
    return address(family, "backward", *special) if backwards else address(family, "forward", *special, added)


@dataclass(frozen=True)
class Launch:
    """All that can be known of a call before its addresses are: made once for each sort of call."""

    function: int
    sizes: bytes  # what the kernel is told of the sort
    outer: int  # kept rows; a team of more threads shares out the chunks of rows as well
    phased: bool  # the sums of a statistic may be shared out
    tiled: bool  # more than one tile: they are always
    alone: bool  # so little work that a team is not worth waking
    given: bool  # statistics need not be taken
    takes_all: bool  # dx must be written for the gradients of weight and bias to be
    units: int
    affine_size: int
    partial: int  # bytes of scratch: sums of parts,
    coefficients: int  # what follows from them,
    dweights: int  # and gradients of weights and biases by part
    ones: NDArray[Any]  # in place of weights
    zeros: NDArray[Any]  # and biases that there are none of

    @cached_property
    def scratch(self) -> int:
        """How many bytes of scratch memory a call needs."""
        return self.partial + self.coefficients + self.dweights

    @cached_property
    def affine(self) -> tuple[int, int]:
        """Where ones and zeros are."""
        return self.ones.ctypes.data, self.zeros.ctypes.data

    def phases(self, threads: int) -> int:
        """The phases that so many threads take, a bit each."""
        if not self.phased or not (self.tiled or self.outer < threads):
            return 1
        return 1 << 3 if self.given else 1 << 1 | 1 << 2 | 1 << 3


def launch(
    view: View,
    dtype: str,
    affine: bool,
    centred: bool,
    given: bool,
    backwards: bool,
    turned: bool = False,
    clamped: bool = False,
    added: bool = False,
) -> Launch:
    """Prepare the calls of one sort; compiles the kernel if it is the first that needs it.

    Args:
        view: The view of x.
        dtype: A key of STORAGES.
        affine: Whether there are weights or biases.
        centred: Whether the mean is subtracted.
        given: Whether mean and var are given, rather than those of x.
        backwards: Which of the two passes.
        turned: The result has R innermost: (A, K, R), with S = 1 and a weight for each of R.
        clamped: The result is kept between bounds, and each statistic has one weight.
        added: A tensor is added to the result before that; each statistic has one weight.
    """
    p = plan(view)
    (a, r, k, s), (storage, compute) = view.shape, STORAGES[dtype]
    size = np.dtype(compute).itemsize
    steps = view.affine_steps if affine else (1, 0, 0, 0, max(s, 1), 0)
    a_period, _, r_step, *_ = steps
    affine_size = math.prod(view.affine_sizes) if affine else 1
    tiles = -(-k * s // p.tile)
    by_tile = a * tiles if r_step else a
    affine_parts = -(-a // max(p.chunk, a_period)) if p.walk else by_tile
    by_place = p.walk and steps[5] != 0 and steps[4] == 1
    stored = np.dtype(storage).itemsize
    ragged = by_place and s * stored % LINE != 0
    # measured: columns, which read x and dy twice, are no faster for an earlier stream, nor are runs that a cache keeps
    passed = a * r * k * s * stored * (3 if backwards and p.walk and not own_is_large() else 2)
    large = passed >= _STREAM * (_RAGGED if ragged else 1)
    stream = large and not (backwards and by_place and s < _SOON)
    chunks = 1 if p.walk else -(-r // p.chunk)
    return Launch(
        function=_function(p.walk, backwards, dtype, by_place, clamped, added),
        # in the order of SIZES
        sizes=OF_SORT.pack(
            *(a, r, k, s),
            *steps,
            *(affine_size, affine_parts, p.chunk, p.tile, p.fold),
            *(centred, given, stream, turned, together()),
        ),
        outer=a,
        phased=chunks > 1,
        tiled=tiles > 1,
        alone=a * r * k * s < _SERIAL,
        given=given and not backwards,
        takes_all=by_place or (not p.walk and r_step != 0),
        units=a * k,
        affine_size=affine_size,
        partial=0 if p.walk else 8 * a * (3 if backwards else 2) * chunks * k * s,
        coefficients=0 if p.walk else size * (3 if backwards else 1) * a * k,
        dweights=size * 2 * affine_parts * affine_size if backwards else 0,
        ones=np.ones(affine_size, compute),
        zeros=np.zeros(affine_size, compute),
    )


def forward(
    call: Launch,
    x: int,
    y: int,
    residual: int,
    weight: int,
    bias: int,
    mean: int,
    var: int,
    rstd: int,
    shift: int,
    running_mean: int,
    running_var: int,
    batches: int,
    momentum: float,
    eps: float,
    bounds: tuple[float, float],
    scratch: int,
    threads: int,
) -> None:
    """Normalize.

    Args:
        call: Of the view of x and y, not backwards.
        x, y, residual: Addresses of A · R · K · S numbers in memory order; residual 0 of a call that adds none.
        weight, bias: Addresses of affine_size numbers of the compute type; 0: ones, zeros.
        mean, var, rstd: Addresses of A · K numbers of the compute type; mean and var are read where they are given,
            else written; rstd is always written.
        shift: Where A · K numbers are written of a call that is clamped, for :func:`backward`; 0 of another.
        running_mean, running_var: Addresses of K numbers of the compute type to be moved by momentum; 0: there are
            none.
        batches: Address of an int64 to be counted up by one; 0: there is none.
        eps: Added to the variance.
        bounds: Of the result, where the call is clamped.
        scratch: Address of as many bytes as the call needs.
        threads: How many threads may work on it.
    """
    threads = 1 if call.alone else threads
    phases, (ones, zeros) = call.phases(threads), call.affine
    record = OF_CALL.pack(  # in the order of ADDRESSES
        *(call.function, phases, x, y, residual, 0, 0, weight or ones, bias or zeros, mean, var, rstd, shift),
        *(running_mean, running_var, batches, scratch, scratch + call.partial, 0, 0, 0, eps, momentum, *bounds),
    )
    run_team(record + call.sizes, threads)


def backward(
    call: Launch,
    x: int,
    dy: int,
    dx: int,
    weight: int,
    mean: int,
    rstd: int,
    shift: int,
    dweight: int,
    dbias: int,
    bounds: tuple[float, float],
    scratch: int,
    threads: int,
) -> None:
    """The gradients of :func:`forward`.

    Args:
        call: Of the view of x, backwards.
        x, dy: Addresses of A · R · K · S numbers in memory order.
        dx: Where as many are written; 0: it is skipped, unless the call takes all.
        weight, mean, rstd, shift: As for :func:`forward`.
        dweight, dbias: Where affine_size numbers of the compute type each are written, in the memory order of the view;
            both 0: they are not wanted.
        bounds: Of the result, where the call is clamped; NaN: there is none on this side.
        scratch: Address of as many bytes as the call needs.
        threads: How many threads may work on it.
    """
    threads = 1 if call.alone else threads
    phases, (ones, zeros) = call.phases(threads) | (1 << ADD_PARTS if dweight else 0), call.affine
    coefficients = scratch + call.partial
    record = OF_CALL.pack(
        *(call.function, phases, x, 0, 0, dy, dx, weight or ones, zeros, mean, 0, rstd, shift, 0, 0, 0),
        *(scratch, coefficients, dweight, dbias, coefficients + call.coefficients, 0.0, 0.0, *bounds),
    )
    run_team(record + call.sizes, threads)
