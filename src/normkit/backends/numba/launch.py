"""Launches: what is prepared once for each variant of a call, and how a call reaches its kernel."""

import math
import sys
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit.backends.numba.kernel_cache import address
from normkit.backends.numba.plan import Plan, plan
from normkit.backends.numba.record import CALL_STRUCT, FIRST_STRUCT, LINE, REDUCE_PARTIALS, SHAPE_STRUCT
from normkit.backends.numba.threads import run_kernel
from normkit.backends.numba.tuning import TUNING
from normkit.backends.processor import has_large_l2, interleave_bytes
from normkit.spec import View

STORAGES: Final[dict[str, tuple[type, type]]] = {
    "float64": (np.float64, np.float64),
    "float32": (np.float32, np.float32),
    "bfloat16": (np.uint16, np.float32),
    "float16": (np.int16, np.float32),
}
"""The dtype that elements are stored as, and the one they are computed in; half precision is read as integers."""

_ONE_PHASE: Final = 1 << 0
_SPLIT_PHASES: Final = 1 << 1 | 1 << 2 | 1 << 3  # sum chunks, merge them, normalize
_NORMALIZE_PHASE: Final = 1 << 3


class Variant(NamedTuple):
    """What decides which kernel runs and how.

    Args:
        view: The view of x.
        dtype: A key of STORAGES.
        has_affine: Whether there are weights or biases.
        subtract_mean: Whether the mean is subtracted.
        precomputed: Whether mean and var are given rather than those of x.
        backward: Whether it is the backward pass.
        transposed: Whether the result has R innermost: (A, K, R), with S = 1 and a weight for each of R.
        has_bounds: Whether the result is clamped between bounds; each statistic has one weight then.
        has_residual: Whether a residual is added to the result before that; each statistic has one weight then.
    """

    view: View
    dtype: str
    has_affine: bool
    subtract_mean: bool
    precomputed: bool
    backward: bool
    transposed: bool = False
    has_bounds: bool = False
    has_residual: bool = False


@dataclass(frozen=True, slots=True)
class Launch:
    """What is known of a call without its pointers.

    Args:
        function: The address of the kernel.
        shape_struct: What the kernel reads of the variant, in the order of SIZES.
        split_from: From how many threads on the sums of a statistic are split among them.
        split_phases: The phases this takes, a bit each.
        single_threaded: Whether one thread is done before others could be woken.
        few_partials: Whether one thread sums partial gradients before others could be waited for.
        num_stats: A · K, the number of statistics.
        affine_size: The number of weights.
        needs_dx: Whether dx must be written for dweight and dbias to be.
        chunk_sum_bytes: Scratch for the sums of chunks.
        coefficient_bytes: Scratch for what follows from them.
        scratch_bytes: All scratch, with that for dweight and dbias by part.
        ones: The address of weights of one.
        zeros: The address of biases of zero.
        constants: The arrays at these addresses, at least affine_size elements each; other launches have them too.
    """

    function: int
    shape_struct: bytes
    split_from: int
    split_phases: int
    single_threaded: bool
    few_partials: bool
    num_stats: int
    affine_size: int
    needs_dx: bool
    chunk_sum_bytes: int
    coefficient_bytes: int
    scratch_bytes: int
    ones: int
    zeros: int
    constants: tuple[NDArray[Any], NDArray[Any]]


class ForwardPointers(NamedTuple):
    """The addresses of a forward call; 0: there is none.

    Args:
        x, y, residual: A · R · K · S elements in memory order.
        weight, bias: affine_size elements of the compute dtype.
        mean, var, rstd: num_stats elements of the compute dtype; mean and var are read if precomputed, else written.
        shift: num_stats elements, written for :func:`backward` if the result is clamped without a residual.
        running_mean, running_var: K elements of the compute dtype, to be updated.
        num_batches_tracked: An int64 to be counted up by one.
    """

    x: int
    y: int
    residual: int
    weight: int
    bias: int
    mean: int
    var: int
    rstd: int
    shift: int
    running_mean: int
    running_var: int
    num_batches_tracked: int


class BackwardPointers(NamedTuple):
    """The addresses of a backward call; 0: there is none.

    Args:
        x, dy: A · R · K · S elements in memory order.
        dx: Where as many are written; 0: not wanted, which needs_dx forbids.
        weight, mean, rstd, shift: Those of :class:`ForwardPointers`.
        dweight, dbias: Where affine_size elements of the compute dtype each are written, in the memory order of the
            view; both 0: not wanted.
    """

    x: int
    dy: int
    dx: int
    weight: int
    mean: int
    rstd: int
    shift: int
    dweight: int
    dbias: int


def launch(variant: Variant) -> Launch:
    """Prepare the calls of a variant, and compile its kernel if no other has."""
    view, cut = variant.view, plan(variant.view)
    (a, r, k, s), (_, compute) = view.shape, STORAGES[variant.dtype]
    steps = view.affine_steps if variant.has_affine else (1, 0, 0, 0, max(s, 1), 0)
    affine_size = math.prod(view.affine_sizes) if variant.has_affine else 1
    a_period, _, r_step, _, s_run, s_step = steps
    is_runs = cut.family == "runs"
    elementwise_affine = is_runs and s_step != 0 and s_run == 1
    tiles = -(-k * s // cut.tile)
    chunks = 1 if is_runs else -(-r // cut.chunk)
    tile_parts = a * tiles if r_step else a
    num_partials = -(-a // max(cut.chunk, a_period)) if is_runs else tile_parts
    stream = _streams(variant, cut, elementwise_affine)
    ones, zeros = _constants(affine_size, compute)
    chunk_sum_bytes = 0 if is_runs else 8 * a * (3 if variant.backward else 2) * chunks * k * s
    coefficient_bytes = 0 if is_runs else ones.itemsize * (3 if variant.backward else 1) * a * k
    partials_bytes = ones.itemsize * 2 * num_partials * affine_size if variant.backward else 0
    return Launch(
        function=_function(variant, cut.family, elementwise_affine),
        # in the order of SIZES
        shape_struct=SHAPE_STRUCT.pack(
            *(a, r, k, s),
            *(*steps, affine_size),
            *(num_partials, cut.chunk, cut.tile, cut.fold),
            *(variant.subtract_mean, variant.precomputed, stream, variant.transposed),
            interleave_bytes(),
        ),
        split_from=sys.maxsize if chunks == 1 else 0 if tiles > 1 else a + 1,
        split_phases=_NORMALIZE_PHASE if variant.precomputed and not variant.backward else _SPLIT_PHASES,
        single_threaded=a * r * k * s < TUNING.single_thread_elements,
        few_partials=num_partials * affine_size <= TUNING.single_thread_partials,
        num_stats=a * k,
        affine_size=affine_size,
        needs_dx=elementwise_affine or (not is_runs and r_step != 0),
        chunk_sum_bytes=chunk_sum_bytes,
        coefficient_bytes=coefficient_bytes,
        scratch_bytes=chunk_sum_bytes + coefficient_bytes + partials_bytes,
        ones=ones.ctypes.data,
        zeros=zeros.ctypes.data,
        constants=(ones, zeros),
    )


_shared_constants: dict[type, tuple[NDArray[Any], NDArray[Any]]] = {}


def _constants(size: int, dtype: type) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ones and zeros, this many or more: the same for all launches, which are kept for every shape of an input.

    They at least double where they are too few. So all that were made take no more than four times the memory of the
    largest that was asked for.
    """
    shared = _shared_constants.get(dtype)
    if shared is None or shared[0].size < size:
        size = max(size, 0 if shared is None else 2 * shared[0].size)
        _shared_constants[dtype] = shared = np.ones(size, dtype), np.zeros(size, dtype)
    return shared


def _streams(variant: Variant, cut: Plan, elementwise_affine: bool) -> bool:
    """Return whether the output is streamed: whether the caches could not keep it with what is read."""
    a, r, k, s = variant.view.shape
    itemsize = np.dtype(STORAGES[variant.dtype][0]).itemsize
    # measured: columns, which read x and dy twice, are no faster for an earlier stream, nor are runs that a cache keeps
    tensors = 3 if variant.backward and cut.family == "runs" and not has_large_l2() else 2
    unaligned = elementwise_affine and s * itemsize % LINE != 0
    least = TUNING.stream_bytes * (TUNING.unaligned_stream_factor if unaligned else 1)
    reuses_dweight = variant.backward and elementwise_affine and s < TUNING.dweight_reuse_elements
    return tensors * a * r * k * s * itemsize >= least and not reuses_dweight


def _function(variant: Variant, family: str, elementwise_affine: bool) -> int:
    """Return the address of the kernel of a variant."""
    choices = (elementwise_affine, variant.has_bounds) if family == "runs" else (variant.has_bounds,)
    if variant.backward:
        return address(f"{family}.backward", *STORAGES[variant.dtype], *choices)
    return address(f"{family}.forward", *STORAGES[variant.dtype], *choices, variant.has_residual)


def forward(
    launch: Launch,
    pointers: ForwardPointers,
    eps: float,
    momentum: float,
    bounds: tuple[float, float],
    scratch: int,
    num_threads: int,
) -> None:
    """Normalize.

    Args:
        launch: Of a variant that is not backward.
        pointers: What is read and written.
        eps: Added to the variance.
        momentum: The weight of the new batch in the running statistics.
        bounds: Of the result, if it is clamped.
        scratch: The address of scratch_bytes bytes.
        num_threads: How many threads may work on it.
    """
    threads = 1 if launch.single_threaded else num_threads
    phases = launch.split_phases if threads >= launch.split_from else _ONE_PHASE
    x, y, residual, weight, bias, mean, var, rstd, shift, running_mean, running_var, num_batches_tracked = pointers
    coefficients, (lower, upper) = scratch + launch.chunk_sum_bytes, bounds
    # in the order of ADDRESSES and FLOATS; a tuple of arguments would cost as much as packing them
    call = CALL_STRUCT.pack(
        launch.function, phases, x, y, residual, weight or launch.ones, bias or launch.zeros, mean, var, rstd, shift,
        running_mean, running_var, num_batches_tracked, 0, 0, 0, 0, scratch, coefficients, 0,
        eps, momentum, lower, upper,
    )  # fmt: skip
    run_kernel(call + launch.shape_struct, threads)


def backward(
    launch: Launch, pointers: BackwardPointers, bounds: tuple[float, float], scratch: int, num_threads: int
) -> None:
    """Take the gradients of :func:`forward`.

    Args:
        launch: Of a variant that is backward.
        pointers: What is read and written.
        bounds: Of the result, if it is clamped; NaN: there is none on this side.
        scratch: The address of scratch_bytes bytes.
        num_threads: How many threads may work on it.
    """
    threads = 1 if launch.single_threaded else num_threads
    phases = launch.split_phases if threads >= launch.split_from else _ONE_PHASE
    x, dy, dx, weight, mean, rstd, shift, dweight, dbias = pointers
    reduce = 1 << REDUCE_PARTIALS if dweight else 0
    last = reduce if threads > 1 and launch.few_partials else 0  # what this thread does when the others are done
    coefficients, (lower, upper) = scratch + launch.chunk_sum_bytes, bounds
    call = CALL_STRUCT.pack(
        launch.function, phases | reduce ^ last, x, 0, 0, weight or launch.ones, launch.zeros, mean, 0, rstd, shift,
        0, 0, 0, dy, dx, dweight, dbias, scratch, coefficients, coefficients + launch.coefficient_bytes,
        0.0, 0.0, lower, upper,
    )  # fmt: skip
    call += launch.shape_struct
    run_kernel(call, threads)
    if last:
        run_kernel(FIRST_STRUCT.pack(launch.function, last) + call[FIRST_STRUCT.size :], 1)
