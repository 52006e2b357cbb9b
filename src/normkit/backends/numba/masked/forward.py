"""The masked forward kernel."""

import numpy as np

from normkit.backends.numba.compile import cast, inline, jit, kernel, pointer
from normkit.backends.numba.masked.moments import moments
from normkit.backends.numba.masked.rows import affine_offset, record, row_offset, stats_per_batch, weights_offset
from normkit.backends.numba.masked.sums import where_weighted
from normkit.backends.numba.memory import fence, load_masked
from normkit.backends.numba.output import run_writer
from normkit.backends.numba.scratch import alloc, free
from normkit.backends.numba.simd import fma, splat


@inline
def row_params(run, x, weights, table, g, stat, piece):
    """Return mean_hi, factor and shift of a row, and the offset of its weights."""
    at = 3 * run
    return table[at], table[at + 1], table[at + 2], weights_offset(g, stat + run // g.spans, piece)


@jit
def row_values(start, i, n, zero, params, x, weights, table, g, stat, piece):
    """Return (x - mean_hi) · factor + shift of valid elements, and 0 of the others."""
    mean_hi, factor, shift, weights_at = params
    y = fma(load_masked(x, start + i, n, zero) - splat(mean_hi), splat(factor), splat(shift))
    return where_weighted(y, load_masked(weights, weights_at + i, n, zero), zero)


write_rows = run_writer(row_params, row_values, elementwise_affine=False)


@jit
def fill_table(g, stat, count, moments_64, stats, affine, table, zero):
    """Store the statistics, and fill in mean_hi, factor and shift of each of their rows."""
    (means_64, variances_64), (means, lows, variances, rstds), (weight, bias) = moments_64, stats, affine
    for i in range(count):
        means[stat + i], variances[stat + i] = cast(means_64[i], zero), cast(variances_64[i], zero)
        lows[stat + i] = cast(means_64[i] - float(means[stat + i]), zero)
        rstds[stat + i] = cast(1.0 / np.sqrt(variances_64[i] + g.eps), zero)
        for span in range(g.spans):
            at, offset = 3 * (i * g.spans + span), affine_offset(g, stat + i, span)
            factor = rstds[stat + i] * weight[offset]
            table[at], table[at + 1], table[at + 2] = means[stat + i], factor, bias[offset] - lows[stat + i] * factor


def make_kernel(storage, compute):
    """Compile the kernel: statistics of what is valid, and the normalized result."""
    itemsize = np.dtype(storage).itemsize

    @kernel
    def masked_forward(data, part, parts, phase):
        g = record(data)
        x, y, weights = pointer(g.x, storage), pointer(g.y, storage), pointer(g.weights, compute)
        totals, affine = pointer(g.totals, np.float64), (pointer(g.weight, compute), pointer(g.bias, compute))
        means, lows = pointer(g.mean, compute), pointer(g.mean_lo, compute)
        stats = means, lows, pointer(g.var, compute), pointer(g.rstd, compute)
        zero, streams, one, stride = compute(0), g.stream != 0, np.int64(1), np.int64(0)
        most = stats_per_batch(g, np.int64(itemsize))
        means_64, variances_64 = alloc(most, 0.0), alloc(most, 0.0)
        pivots, table = alloc(most, zero), alloc(3 * most * g.spans, zero)
        stat, end = g.num_stats * part // parts, g.num_stats * (part + 1) // parts
        while stat < end:
            count = min(most, end - stat)
            moments(g, x, weights, totals, stat, count, pivots, means_64, variances_64, zero)
            fill_table(g, stat, count, (means_64, variances_64), stats, affine, table, zero)
            for piece in range(g.outer - 1, -1, -1):  # a cache that does not hold all holds the end
                start, operands = row_offset(g, stat, piece), (x, weights, table, g, stat, piece)
                write_rows(y, start, one, stride, count * g.spans, g.size, streams, zero, *operands)
            stat += count
        for values in (means_64, variances_64):
            free(values)
        for values in (pivots, table):
            free(values)
        if streams:
            fence()

    return masked_forward
