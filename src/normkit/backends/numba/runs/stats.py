"""Batches of neighbouring statistics, which a thread takes together."""

import numpy as np

from normkit.backends.numba.compile import inline, jit
from normkit.backends.numba.tuning import TUNING

BATCH_BYTES = TUNING.batch_bytes


@jit
def stats_per_batch(g, itemsize):
    """Return how many statistics to take at once: neighbours are read together, and none waits for another."""
    if g.r > 1:
        return max(1, min(g.k, g.interleave_bytes // (g.r * g.s * itemsize)))
    return max(1, min(g.a * g.k, BATCH_BYTES // (g.s * itemsize)))


@jit
def batch_of_stats(g, stat, end, most):
    """Return how many statistics from this one on form a batch, and the offset of their elements."""
    a, k = stat // g.k, stat % g.k
    count = min(most, end - stat)
    if g.r > 1:  # those of the next a lie elsewhere
        count = min(count, g.k - k)
    return count, (a * g.r * g.k + k) * g.s


@inline
def write_passes(g, count, itemsize):
    """Return the two passes in which a batch is written once all of it was read: (last row, rows, prefetch distance).

    From the last row up, since a cache that does not hold the whole batch holds the end of it. While the first rows are
    streamed, as much of the next batch is prefetched as can be kept until it is needed.
    """
    row = count * g.s
    near = max(1, min(g.r, g.interleave_bytes // (row * itemsize)))
    ahead = row if g.stream != 0 and near * row * itemsize <= g.interleave_bytes else np.int64(0)
    return (g.r - 1, g.r - near, np.int64(0)), (near - 1, near, ahead)
