"""The masked backward kernel.

With g = dy · weight, W the sum of the weights w of a statistic, and sums over what is valid:
dx = rstd · (g - w / W · (sum(g) + x_hat · sum(g · x_hat))) where w is not 0, and 0 elsewhere.
"""

import numpy as np

from normkit.backends.numba.compile import cast, inline, jit, kernel, pointer
from normkit.backends.numba.masked.rows import affine_offset, record, row_offset, stats_per_batch, weights_offset
from normkit.backends.numba.masked.sums import gradient_sums, where_weighted
from normkit.backends.numba.memory import fence, load_masked
from normkit.backends.numba.output import run_writer
from normkit.backends.numba.scratch import alloc, fill, free
from normkit.backends.numba.simd import fma, splat


@inline
def row_params(run, tensors, table, g, stat, piece):
    """Return mean_hi and the coefficients of dy, w and w · d in dx of a row, and the offset of its weights."""
    at = 4 * run
    return table[at], table[at + 1], table[at + 2], table[at + 3], weights_offset(g, stat + run // g.spans, piece)


@jit
def row_values(start, i, n, zero, params, tensors, table, g, stat, piece):
    """Return dx of valid elements, and 0 of the others."""
    x, dy, weights = tensors
    mean_hi, dy_factor, constant, d_factor, weights_at = params
    w = load_masked(weights, weights_at + i, n, zero)
    d = load_masked(x, start + i, n, zero) - splat(mean_hi)
    through_stats = w * fma(d, splat(d_factor), splat(constant))
    dx = fma(load_masked(dy, start + i, n, zero), splat(dy_factor), through_stats)
    return where_weighted(dx, w, zero)


write_rows = run_writer(row_params, row_values, elementwise_affine=False)


@jit
def sum_rows(g, stat, count, tensors, means, sums, zero):
    """Sum dy and dy · d of each row of `count` neighbouring statistics, over their pieces."""
    (x, dy, weights), (dy_sums, dyd_sums) = tensors, sums
    for values in sums:
        fill(values, 0.0)
    for piece in range(g.outer):
        for i in range(count):
            at, weights_at = row_offset(g, stat + i, piece), weights_offset(g, stat + i, piece)
            for span in range(g.spans):
                start, mean_hi = at + span * g.size, means[stat + i]
                total, products = gradient_sums(x, dy, weights, start, weights_at, g.size, mean_hi, zero)
                dy_sums[i * g.spans + span] += total
                dyd_sums[i * g.spans + span] += products


@jit
def fill_table(g, stat, count, totals, stats, affine, sums, table, zero):
    """Store the gradients of weight and bias by row, and fill in what `row_params` returns."""
    (means, lows, rstds), (weight, dweight, dbias), (dy_sums, dyd_sums) = stats, affine, sums
    for i in range(count):
        of, at = stat + i, i * g.spans
        low, rstd, total = float(lows[of]), float(rstds[of]), totals[(stat + i) // g.period]
        g_sum, gd_sum = 0.0, 0.0
        for span in range(g.spans):
            factor, dyd = float(weight[affine_offset(g, of, span)]), dyd_sums[at + span] - low * dy_sums[at + span]
            g_sum += factor * dy_sums[at + span]
            gd_sum += factor * dyd
            dweight[of * g.spans + span] = cast(dyd * rstd, zero)
            dbias[of * g.spans + span] = cast(dy_sums[at + span], zero)
        through_mean, through_var = rstd * g_sum / total, rstd * rstd * rstd * gd_sum / total
        for span in range(g.spans):
            to = 4 * (at + span)
            table[to], table[to + 1] = means[of], weight[affine_offset(g, of, span)] * rstds[of]
            table[to + 2] = cast(through_var * low - through_mean, zero)
            table[to + 3] = cast(-through_var, zero)


def make_kernel(storage, compute):
    """Compile the kernel: dx, and the gradients of weight and bias by row."""
    itemsize = np.dtype(storage).itemsize

    @kernel
    def masked_backward(data, part, parts, phase):
        g = record(data)
        weights, totals = pointer(g.weights, compute), pointer(g.totals, np.float64)
        tensors, dx = (pointer(g.x, storage), pointer(g.dy, storage), weights), pointer(g.dx, storage)
        stats = pointer(g.mean, compute), pointer(g.mean_lo, compute), pointer(g.rstd, compute)
        affine = pointer(g.weight, compute), pointer(g.dweight, compute), pointer(g.dbias, compute)
        zero, streams, one, stride = compute(0), g.stream != 0, np.int64(1), np.int64(0)
        most = stats_per_batch(g, np.int64(2 * itemsize))
        sums = alloc(most * g.spans, 0.0), alloc(most * g.spans, 0.0)
        table = alloc(4 * most * g.spans, zero)
        stat, end = g.num_stats * part // parts, g.num_stats * (part + 1) // parts
        while stat < end:
            count = min(most, end - stat)
            sum_rows(g, stat, count, tensors, stats[0], sums, zero)
            fill_table(g, stat, count, totals, stats, affine, sums, table, zero)
            if g.dx != 0:
                for piece in range(g.outer - 1, -1, -1):  # a cache that does not hold all holds the end
                    start, operands = row_offset(g, stat, piece), (tensors, table, g, stat, piece)
                    write_rows(dx, start, one, stride, count * g.spans, g.size, streams, zero, *operands)
            stat += count
        for values in sums:
            free(values)
        free(table)
        if streams:
            fence()

    return masked_backward
