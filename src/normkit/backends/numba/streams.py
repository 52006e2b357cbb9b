"""The loop that writes: a run of an output, one vector after the other, past the caches where it is large.

The caches could not keep a large output; and a line that is written past them need not be read before.
"""

from collections.abc import Callable
from typing import Any

from normkit.backends.numba.jit import jit
from normkit.backends.numba.simd import lanes, store, store_part, stream, until_stream


@jit
def nothing(run, *operands):
    """A run that has no numbers of its own."""
    return 0


def writer(numbers: Callable[..., Any], value: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that writes `rows` rows, `stride` apart, of `count` runs of `size` numbers, which lie next to each other.

    It writes value(at, i, n, zero, numbers(run, *operands), *operands) to the n numbers from y[at + i] on, where a run
    begins at `at`.
    """

    @jit
    def write(y, start, rows, stride, count, size, streams, zero, *operands):
        step = lanes(zero)
        for row in range(rows):
            at = start + row * stride
            for run in range(count):
                known, i = numbers(run, *operands), 0
                if streams:
                    i = min(size, until_stream(y, at))
                    if i:
                        store_part(y, at, value(at, 0, i, zero, known, *operands), i)
                    while i + step <= size:
                        stream(y, at + i, value(at, i, step, zero, known, *operands))
                        i += step
                else:
                    while i + step <= size:
                        store(y, at + i, value(at, i, step, zero, known, *operands))
                        i += step
                if i < size:
                    store_part(y, at + i, value(at, i, size - i, zero, known, *operands), size - i)
                at += size

    return write
