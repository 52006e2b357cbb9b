"""The loops that write an output: runs or columns, one vector after the other, past the caches where it is large.

The caches could not keep a large output; and a line that is written past them need not be read before.
"""

from collections.abc import Callable
from typing import Any

from normkit.backends.numba.compile import jit
from normkit.backends.numba.memory import per_line, prefetch, put, store, store_part, stream, until_line, until_stream
from normkit.backends.numba.simd import joined, lanes

ROWS = 8  # whose columns are written together, at most: what is known of a column is read once for all of them
PAGE = 64  # lines: where a load lies a multiple of them behind a store, the processor waits for the store


@jit
def leave(y, at, vector, n, streams, zero):
    """Write the first n numbers of a vector: past the caches if `streams`, and all of them are written."""
    if streams and n >= lanes(zero):
        stream(y, at, vector)
    else:
        put(y, at, vector, n, zero)


def writer(numbers: Callable[..., Any], value: Callable[..., Any], by_place: bool) -> Callable[..., Any]:
    """A loop that writes `rows` rows, `stride` apart, of `count` runs of `size` numbers, which lie next to each other.

    It writes value(at, i, n, zero, numbers(run, *operands), *operands) to the n numbers from y[at + i] on, where a run
    begins at `at`. Unless that depends on i alone too (`by_place`), a line in which one run ends and the next begins is
    made of the values of both, and goes past the caches like all others; else it is written in parts.
    """

    @jit
    def write(y, start, rows, stride, count, size, streams, zero, *operands):
        step = lanes(zero)
        streams = streams and size >= step
        for row in range(rows):
            at, i = start + row * stride, 0
            if streams and not by_place and until_stream(y, at + count * size):
                prefetch(y, at + count * size)  # its first part is another's: it must be there then
            for run in range(count):
                known = numbers(run, *operands)
                if streams:
                    if by_place and until_stream(y, at + 2 * size):
                        prefetch(y, at + 2 * size)
                    if i == 0:
                        i = until_stream(y, at)
                        if i:
                            store_part(y, at, value(at, 0, i, zero, known, *operands), i)
                    while i + step <= size:
                        stream(y, at + i, value(at, i, step, zero, known, *operands))
                        i += step
                else:
                    while i + step <= size:
                        store(y, at + i, value(at, i, step, zero, known, *operands))
                        i += step
                rest, at, i = size - i, at + size, 0
                if rest:
                    if streams and not by_place and run + 1 < count:
                        ends = value(at - size, size - rest, step, zero, known, *operands)
                        begins = value(at, -rest, step, zero, numbers(run + 1, *operands), *operands)
                        stream(y, at - rest, joined(y, ends, begins, rest))
                        i = step - rest
                    else:
                        store_part(y, at - rest, value(at - size, size - rest, rest, zero, known, *operands), rest)

    return write


def column_writer(numbers: Callable[..., Any], value: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that writes `rows` rows, `stride` apart, of `size` columns: rows of a few at once, a vector of each.

    It writes value(at, n, zero, numbers(c, n, zero, *operands), *operands) to the n numbers from y[at] on, of column c.
    Only rows that all begin with a line of the caches go past them, a line at once: in parts it would go several times.
    As many rows are written together as lie at different places of a page.
    """

    @jit
    def write(y, start, rows, stride, size, streams, zero, *operands):
        step = lanes(zero)
        line = per_line(y)  # one vector, or two of a half type
        streams = streams and until_line(y, start) == 0 and until_line(y, start + stride) == 0
        in_pairs = size // line * line if streams and line > step else 0
        apart = min(stride & -stride, PAGE * line)  # the places of rows are multiples of it
        at_once = min(ROWS, PAGE * line // apart)
        for top in range(0, rows, at_once):
            begin, height = start + top * stride, min(at_once, rows - top)
            for c in range(0, in_pairs, line):
                at = begin + c
                left, right = numbers(c, step, zero, *operands), numbers(c + step, step, zero, *operands)
                for _ in range(height):
                    result = value(at, step, zero, left, *operands)
                    result_2 = value(at + step, step, zero, right, *operands)
                    stream(y, at, result)
                    stream(y, at + step, result_2)
                    at += stride
            for c in range(in_pairs, size, step):
                at, n = begin + c, size - c
                known = numbers(c, n, zero, *operands)
                for _ in range(height):
                    result = value(at, n, zero, known, *operands)
                    leave(y, at, result, n, streams, zero)
                    at += stride

    return write
