"""Units: the numbers that one statistic is taken from. `runs` works on neighbours together."""

import numpy as np

from normkit.backends.numba.compile import inline, jit

NEAR = 16_384  # bytes of input that neighbouring units may have together where each lies in one place


@jit
def units_together(g, itemsize):
    """How many units to work on at once: what lies together is read together, and one need not wait for another."""
    if g.r > 1:
        return max(1, min(g.k, g.interleave_bytes // (g.r * g.s * itemsize)))
    return max(1, min(g.a * g.k, NEAR // (g.s * itemsize)))


@jit
def group_of(g, unit, end, together):
    """How many units from this one on form a group, and where it begins in memory."""
    a, k = unit // g.k, unit % g.k
    count = min(together, end - unit)
    if g.r > 1:  # those of the next a lie elsewhere
        count = min(count, g.k - k)
    return count, (a * g.r * g.k + k) * g.s


@inline
def passes(g, count, itemsize):
    """How a group of `count` units is written, once all of it was read: (its last row, rows, numbers ahead) twice.

    From the last row up, since a cache that does not hold the whole group holds the end of it. While the first rows are
    written past the caches, the next group is asked for, of which as many numbers as can be kept until they are needed.
    """
    row = count * g.s
    near = max(1, min(g.r, g.interleave_bytes // (row * itemsize)))
    ahead = row if g.stream != 0 and near * row * itemsize <= g.interleave_bytes else np.int64(0)
    return (g.r - 1, g.r - near, np.int64(0)), (near - 1, near, ahead)


@inline
def place_of(g, unit):
    """Where the first weight of a unit lies."""
    if g.k * g.a_period == 1:  # a division takes as long as ten vectors
        return np.int64(0)
    if g.k == 1:
        return unit % g.a_period * g.a_step
    if g.a_period == 1:
        return unit % g.k * g.k_step
    return unit // g.k % g.a_period * g.a_step + unit % g.k * g.k_step
