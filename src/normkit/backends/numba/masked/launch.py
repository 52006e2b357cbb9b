"""What is prepared once for the masked kernels of a shape, and their calls."""

from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from normkit.backends.numba.kernel_cache import address
from normkit.backends.numba.launch import STORAGES
from normkit.backends.numba.masked.record import CALL_STRUCT
from normkit.backends.numba.record import LINE
from normkit.backends.numba.threads import run_kernel
from normkit.backends.numba.tuning import TUNING
from normkit.backends.processor import has_large_l2, interleave_bytes

MARGIN: Final = LINE
"""How many elements before and behind the weights of positions are read, and not used."""

_ONE_PHASE: Final = 1 << 0


class Geometry(NamedTuple):
    """Which rows of a contiguous (N, C, L) make a statistic: see the package.

    Args:
        samples, channels, size: N, C and L.
        over_batch: Whether the samples share statistics.
        spans: How many neighbouring channels do.
    """

    samples: int
    channels: int
    size: int
    over_batch: bool
    spans: int = 1

    @property
    def num_stats(self) -> int:
        """The number of statistics."""
        return self.channels // self.spans * (1 if self.over_batch else self.samples)


class Launch(NamedTuple):
    """What is known of a call without its pointers: the kernels of both passes, and whether one thread is enough."""

    forward: tuple[int, tuple[int, ...]]
    backward: tuple[int, tuple[int, ...]]
    single_threaded: bool


class ForwardPointers(NamedTuple):
    """The addresses of a forward call.

    Args:
        x, y: N · C · L elements.
        weights: N · L elements of the compute dtype, with MARGIN readable ones on both sides.
        totals: float64: the sum of the weights of a statistic; one, or one a sample.
        weight, bias: C elements of the compute dtype.
        mean, mean_lo, var, rstd: num_stats elements of the compute dtype, written; the mean is mean + mean_lo.
    """

    x: int
    y: int
    weights: int
    totals: int
    weight: int
    bias: int
    mean: int
    mean_lo: int
    var: int
    rstd: int


class BackwardPointers(NamedTuple):
    """The addresses of a backward call.

    Args:
        x, dy: N · C · L elements.
        dx: Where as many are written; 0: not wanted.
        weights, totals, weight, mean, mean_lo, rstd: Those of :class:`ForwardPointers`.
        dweight, dbias: Where num_stats · spans elements of the compute dtype each are written: to be summed by channel.
    """

    x: int
    dy: int
    dx: int
    weights: int
    totals: int
    weight: int
    mean: int
    mean_lo: int
    rstd: int
    dweight: int
    dbias: int


@lru_cache(maxsize=1024)
def launch(geometry: Geometry, dtype: str) -> Launch:
    """Prepare the calls for a shape and a dtype (a key of STORAGES), and compile its kernels if no other has."""
    samples, channels, size, over_batch, spans = geometry
    itemsize = np.dtype(STORAGES[dtype][0]).itemsize
    numel = samples * channels * size

    def sizes(tensors: int) -> tuple[int, ...]:
        # in the order of SIZES
        return (
            *(geometry.num_stats, samples if over_batch else 1, spans, size),
            *(channels * size if over_batch else 0, channels // spans, int(over_batch)),
            *(int(tensors * numel * itemsize >= TUNING.stream_bytes), interleave_bytes()),
        )

    forward = address("masked.forward", *STORAGES[dtype]), sizes(2)
    backward = address("masked.backward", *STORAGES[dtype]), sizes(2 if has_large_l2() else 3)
    return Launch(forward, backward, numel < TUNING.single_thread_elements)


def run_forward(launch: Launch, pointers: ForwardPointers, eps: float, num_threads: int) -> None:
    """Normalize what is valid."""
    (function, sizes), (x, y, weights, totals, weight, bias, mean, mean_lo, var, rstd) = launch.forward, pointers
    call = CALL_STRUCT.pack(
        function, _ONE_PHASE, x, y, 0, 0, weights, totals, weight, bias, mean, mean_lo, var, rstd, 0, 0, eps, *sizes
    )
    run_kernel(call, 1 if launch.single_threaded else num_threads)


def run_backward(launch: Launch, pointers: BackwardPointers, num_threads: int) -> None:
    """Take the gradients of :func:`run_forward`."""
    function, sizes = launch.backward
    x, dy, dx, weights, totals, weight, mean, mean_lo, rstd, dweight, dbias = pointers
    call = CALL_STRUCT.pack(
        function,
        _ONE_PHASE,
        x,
        0,
        dy,
        dx,
        weights,
        totals,
        weight,
        0,
        mean,
        mean_lo,
        0,
        rstd,
        dweight,
        dbias,
        0.0,
        *sizes,
    )
    run_kernel(call, 1 if launch.single_threaded else num_threads)
