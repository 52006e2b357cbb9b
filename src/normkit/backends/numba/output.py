"""The loops that write an output, one vector after the other: of runs, or of columns.

A large output is streamed, with non-temporal stores: the caches could not keep it, and a cache line that is streamed
need not be read before.
"""

from collections.abc import Callable
from typing import Any

from normkit.backends.numba.compile import jit
from normkit.backends.numba.memory import (
    elements_per_line,
    prefetch,
    store,
    store_masked,
    store_nontemporal,
    store_tail,
    until_aligned,
    until_line,
)
from normkit.backends.numba.simd import blend, lanes
from normkit.backends.numba.tuning import TUNING

WRITTEN_ROWS = TUNING.written_rows
PAGE_LINES = TUNING.page_lines


@jit
def store_streaming(y, offset, vector, n, streams, zero):
    """Store the first n elements of a vector: with a non-temporal store if `streams` and n is the whole vector."""
    if streams and n >= lanes(zero):
        store_nontemporal(y, offset, vector)
    else:
        store_masked(y, offset, vector, n, zero)


def run_writer(
    params_of: Callable[..., Any], value: Callable[..., Any], elementwise_affine: bool
) -> Callable[..., Any]:
    """Return a loop that writes `rows` rows, `stride` apart, of `count` adjacent runs of `size` elements.

    It writes value(start, i, n, zero, params_of(run, *operands), *operands) to n elements of y from start + i on, where
    a run begins at `start`. A cache line in which one run ends and the next begins is blended of the values of both,
    and streamed like all others; except for `elementwise_affine` values, which depend on i alone too: they are written
    in parts.
    """

    @jit
    def write(y, start, rows, stride, count, size, streams, zero, *operands):
        step = lanes(zero)
        streams = streams and size >= step
        for row in range(rows):
            at, i = start + row * stride, 0
            if streams and not elementwise_affine and until_aligned(y, at + count * size):
                prefetch(y, at + count * size)  # its first part is another's: it must be there then
            for run in range(count):
                params = params_of(run, *operands)
                if streams:
                    if elementwise_affine and until_aligned(y, at + 2 * size):
                        prefetch(y, at + 2 * size)
                    if i == 0:
                        i = until_aligned(y, at)
                        if i:
                            store_tail(y, at, value(at, 0, i, zero, params, *operands), i)
                    while i + step <= size:
                        store_nontemporal(y, at + i, value(at, i, step, zero, params, *operands))
                        i += step
                else:
                    while i + step <= size:
                        store(y, at + i, value(at, i, step, zero, params, *operands))
                        i += step
                rest, at, i = size - i, at + size, 0
                if rest:
                    if streams and not elementwise_affine and run + 1 < count:
                        end = value(at - size, size - rest, step, zero, params, *operands)
                        begin = value(at, -rest, step, zero, params_of(run + 1, *operands), *operands)
                        store_nontemporal(y, at - rest, blend(y, end, begin, rest))
                        i = step - rest
                    else:
                        store_tail(y, at - rest, value(at - size, size - rest, rest, zero, params, *operands), rest)

    return write


def column_writer(params_of: Callable[..., Any], value: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop that writes `rows` rows, `stride` apart, of `size` columns: a vector of several rows at once.

    It writes value(offset, n, zero, params_of(c, n, zero, *operands), *operands) to n elements of y from `offset` on,
    of column c. Only rows that all begin with a cache line are streamed, a line at once: in parts it would reach memory
    several times. As many rows are written together as begin at different offsets of a page.
    """

    @jit
    def write(y, start, rows, stride, size, streams, zero, *operands):
        step = lanes(zero)
        line = elements_per_line(y)  # one vector, or two of half precision
        streams = streams and until_line(y, start) == 0 and until_line(y, start + stride) == 0
        in_pairs = size // line * line if streams and line > step else 0
        apart = min(stride & -stride, PAGE_LINES * line)  # the offsets of rows in a page are multiples of it
        at_once = min(WRITTEN_ROWS, PAGE_LINES * line // apart)
        for top in range(0, rows, at_once):
            begin, height = start + top * stride, min(at_once, rows - top)
            for c in range(0, in_pairs, line):
                at = begin + c
                left, right = params_of(c, step, zero, *operands), params_of(c + step, step, zero, *operands)
                for _ in range(height):
                    result = value(at, step, zero, left, *operands)
                    result_2 = value(at + step, step, zero, right, *operands)
                    store_nontemporal(y, at, result)
                    store_nontemporal(y, at + step, result_2)
                    at += stride
            for c in range(in_pairs, size, step):
                at, n = begin + c, size - c
                params = params_of(c, n, zero, *operands)
                for _ in range(height):
                    result = value(at, n, zero, params, *operands)
                    store_streaming(y, at, result, n, streams, zero)
                    at += stride

    return write
