"""The loop that writes: a run of an output, one vector after the other, past the caches where it is large.

The caches could not keep a large output; and a line that is written past them need not be read before.
"""

from collections.abc import Callable
from typing import Any

from normkit.backends.numba.jit import jit
from normkit.backends.numba.simd import lanes, store, store_part, stream


@jit
def unaligned(y, start, size, zero):
    """How many numbers lie before the first place of y[start : start + size] that a vector may be streamed to."""
    line = lanes(zero) * y.itemsize
    return min(size, (-(y.ctypes.data + start * y.itemsize)) % line // y.itemsize)


def writer(value: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that writes y[start : start + size] = value(i, n, zero, *operands), of the n numbers from i on."""

    @jit
    def write(y, start, size, streams, zero, *operands):
        step, i = lanes(zero), 0
        if streams:
            i = unaligned(y, start, size, zero)
            if i:
                store_part(y, start, value(0, i, zero, *operands), i)
            while i + step <= size:
                stream(y, start + i, value(i, step, zero, *operands))
                i += step
        else:
            while i + step <= size:
                store(y, start + i, value(i, step, zero, *operands))
                i += step
        if i < size:
            store_part(y, start + i, value(i, size - i, zero, *operands), size - i)

    return write
