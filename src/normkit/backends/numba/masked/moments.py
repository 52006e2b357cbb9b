"""Weighted mean and variance of the valid elements of statistics."""

import numpy as np

from normkit.backends.numba.compile import cast, jit
from normkit.backends.numba.masked.rows import row_offset, weights_offset
from normkit.backends.numba.masked.sums import row_sums, wide_row_sums
from normkit.backends.numba.memory import load_masked
from normkit.backends.numba.simd import reduce_add
from normkit.backends.numba.tuning import TUNING

FAR_PIVOT_SHARE = TUNING.far_pivot_share


@jit
def first_pivot(g, x, weights, stat, zero):
    """Return a value of a statistic, or the mean of its first row with any, to be close to the mean of all."""
    for piece in range(g.outer):
        at, weights_at = row_offset(g, stat, piece), weights_offset(g, stat, piece)
        for i in range(g.size):
            if weights[weights_at + i] > zero:
                pivot = reduce_add(load_masked(x, at + i, 1, zero))
                total = np.float64(0.0)
                for j in range(i, g.size):
                    total += float(weights[weights_at + j])
                return pivot + cast(row_sums(x, weights, at, weights_at, g.size, pivot, zero)[0] / total, zero)
    return zero


@jit
def sums_about(g, x, weights, stat, pivot, zero):
    """Sum w · d and w · d² over all of a statistic, d = x - pivot."""
    total, squares = 0.0, 0.0
    for piece in range(g.outer):
        at, weights_at = row_offset(g, stat, piece), weights_offset(g, stat, piece)
        for span in range(g.spans):
            sums = row_sums(x, weights, at + span * g.size, weights_at, g.size, pivot, zero)
            total += sums[0]
            squares += sums[1]
    return total, squares


@jit
def wide_moments(g, x, weights, stat, weight, zero):
    """Return mean and variance with every operation in float64."""
    mean = 0.0
    for want_var in range(2):
        total, squares = 0.0, 0.0
        for piece in range(g.outer):
            at, weights_at = row_offset(g, stat, piece), weights_offset(g, stat, piece)
            for span in range(g.spans):
                sums = wide_row_sums(x, weights, at + span * g.size, weights_at, g.size, mean, zero)
                total += sums[0]
                squares += sums[1]
        if want_var:
            return mean, squares / weight
        mean = total / weight
    return mean, 0.0


@jit
def moments(g, x, weights, totals, stat, count, pivots, means, variances, zero):
    """Compute mean and variance of `count` neighbouring statistics; 0 where nothing is valid.

    All take one piece before any takes the next: what is adjacent in memory is read together.
    """
    for i in range(count):
        pivots[i] = first_pivot(g, x, weights, stat + i, zero)
        means[i], variances[i] = 0.0, 0.0
    for piece in range(g.outer):
        for i in range(count):
            at, weights_at = row_offset(g, stat + i, piece), weights_offset(g, stat + i, piece)
            for span in range(g.spans):
                total, squares = row_sums(x, weights, at + span * g.size, weights_at, g.size, pivots[i], zero)
                means[i] += total
                variances[i] += squares
    for i in range(count):
        weight, total, squares = totals[(stat + i) // g.period], means[i], variances[i]
        if weight == 0.0:
            continue
        pivot = pivots[i]
        if total * total > FAR_PIVOT_SHARE * weight * squares:
            pivot += cast(total / weight, zero)
            total, squares = sums_about(g, x, weights, stat + i, pivot, zero)
        if np.isfinite(squares):
            rest = total / weight
            means[i], variances[i] = float(pivot) + rest, max(squares - rest * total, 0.0) / weight
        else:
            means[i], variances[i] = wide_moments(g, x, weights, stat + i, weight, zero)
