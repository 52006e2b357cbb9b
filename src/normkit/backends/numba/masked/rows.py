"""Rows of a statistic: where they lie, which row of weights is theirs, and which weight and bias."""

from normkit.backends.numba.compile import inline, jit, record_reader
from normkit.backends.numba.masked.record import RECORD
from normkit.backends.numba.tuning import TUNING

BATCH_BYTES = TUNING.batch_bytes
record = record_reader(RECORD)


@jit
def stats_per_batch(g, itemsize):
    """Return how many statistics to take at once: their rows are neighbours in memory."""
    piece = g.spans * g.size * itemsize
    if g.outer > 1:
        return max(1, min(g.num_stats, g.interleave_bytes // (g.outer * piece)))
    return max(1, min(g.num_stats, BATCH_BYTES // piece))


@inline
def row_offset(g, stat, piece):
    """Return the offset of the first row of a piece of a statistic."""
    return piece * g.outer_stride + stat * g.spans * g.size


@inline
def weights_offset(g, stat, piece):
    """Return the offset of the weights of the positions in a piece of a statistic."""
    return (stat // g.period + piece * g.sample_step) * g.size


@inline
def affine_offset(g, stat, span):
    """Return the offset of the weight and bias of a row."""
    return stat % g.period * g.spans + span
