"""Mean and variance of runs: see `runs` for the scheme."""

import numpy as np

from normkit.backends.numba.compile import cast, jit
from normkit.backends.numba.memory import load, load_masked, load_tail, prefetch
from normkit.backends.numba.simd import fma, lanes, mask_tail, reduce_add, splat
from normkit.backends.numba.tuning import TUNING

BLOCK_ELEMENTS = TUNING.block_elements
SAMPLE_ELEMENTS = TUNING.sample_elements
PREFETCH_RUN_ELEMENTS = TUNING.prefetch_run_elements
PREFETCH_ELEMENTS = TUNING.prefetch_elements
FAR_PIVOT_SHARE = TUNING.far_pivot_share


@jit
def prefetch_distance(size, stride):
    """Return how far ahead to prefetch runs of `size` elements, `stride` apart; hardware finds what follows."""
    return PREFETCH_ELEMENTS if size < PREFETCH_RUN_ELEMENTS else PREFETCH_RUN_ELEMENTS // size * stride


@jit
def sums_about(x, start, rows, stride, size, pivot, zero):
    """Sum d = x - pivot and d² over `rows` runs of `size` elements, `stride` apart."""
    step, about, none = lanes(zero), splat(pivot), splat(zero)
    sums, sums_2, squares, squares_2 = none, none, none, none
    ahead = prefetch_distance(size, stride)
    whole = size - size % (2 * step)
    rest = min(step, size - whole)
    rest_2 = size - whole - rest
    for at in range(start, start + rows * stride, stride):
        for i in range(at, at + whole, 2 * step):
            prefetch(x, i + ahead)
            prefetch(x, i + ahead + step)
            d, d_2 = load(x, i) - about, load(x, i + step) - about
            sums += d
            sums_2 += d_2
            squares, squares_2 = fma(d, d, squares), fma(d_2, d_2, squares_2)
        if rest:
            d = mask_tail(x, load_tail(x, at + whole, rest) - about, rest)
            sums += d
            squares = fma(d, d, squares)
        if rest_2:
            d = mask_tail(x, load_tail(x, at + whole + step, rest_2) - about, rest_2)
            sums_2 += d
            squares_2 = fma(d, d, squares_2)
    return float(reduce_add(sums + sums_2)), float(reduce_add(squares + squares_2))


@jit
def merge(count, mean, m2, other_count, other_mean, other_m2):
    """Merge count, mean and sum of squared deviations of two samples (Chan, Golub & LeVeque 1979)."""
    if count == 0.0:  # not by the formula: the square of a huge mean may overflow
        return other_count, other_mean, other_m2
    both = count + other_count
    delta = other_mean - mean
    share = other_count / both
    return both, mean + delta * share, m2 + other_m2 + delta * delta * (count * share)


@jit
def element(x, index):
    """Return x[index] in the compute dtype."""
    return reduce_add(load_tail(x, index, 1))


@jit
def wide_moments(x, base, rows, stride, size, subtract_mean):
    """Return `moments` with every sum in float64: for squares that the compute dtype cannot hold."""
    total, m2 = 0.0, 0.0
    for row in range(rows):
        for i in range(size):
            total += float(element(x, base + row * stride + i))
    mean = total / (rows * size) if subtract_mean else 0.0
    for row in range(rows):
        for i in range(size):
            deviation = float(element(x, base + row * stride + i)) - mean
            m2 += deviation * deviation
    return mean, m2


@jit
def first_pivot(x, start, size, subtract_mean, zero):
    """Return the mean of the first of `size` elements, to be close to that of all; 0 if no mean is subtracted."""
    if not subtract_mean:
        return zero
    sums, step, count = splat(zero), lanes(zero), min(size, SAMPLE_ELEMENTS)
    for i in range(0, count, step):
        sums += load_masked(x, start + i, count - i, zero)
    return cast(float(reduce_add(sums)) / count, zero)


@jit
def add_block(x, start, rows, stride, size, subtract_mean, pivot, count, mean, m2, zero):
    """Merge a block, summed about a pivot, into mean and sum of squared deviations of `count` elements."""
    n = float(rows * size)
    if not subtract_mean:
        return 0.0, m2 + sums_about(x, start, rows, stride, size, zero, zero)[1]
    total, squares = sums_about(x, start, rows, stride, size, pivot, zero)
    if total * total > FAR_PIVOT_SHARE * n * squares:
        pivot += cast(total / n, zero)
        total, squares = sums_about(x, start, rows, stride, size, pivot, zero)
    rest = total / n
    _, mean, m2 = merge(count, mean, m2, n, float(pivot) + rest, max(squares - rest * total, 0.0))
    return mean, m2


@jit
def moments(g, x, base, count, means, variances, zero):
    """Compute mean and biased variance of `count` neighbouring statistics, whose elements begin at `base`.

    All statistics take one block of rows before any takes the next: what is adjacent in memory is read together.
    """
    rows, size, stride, subtract_mean = g.r, g.s, g.k * g.s, g.subtract_mean != 0
    if rows == 1 and size <= BLOCK_ELEMENTS:
        for i in range(count):  # each waits for all of its elements: the processor goes on with the next meanwhile
            means[i] = first_pivot(x, base + i * size, size, subtract_mean, zero)
        for i in range(count):
            at, pivot = base + i * size, cast(means[i], zero)
            means[i], variances[i] = add_block(x, at, rows, stride, size, subtract_mean, pivot, 0.0, 0.0, 0.0, zero)
    else:
        for i in range(count):
            means[i], variances[i] = 0.0, 0.0
        height = max(1, BLOCK_ELEMENTS // size)
        for top in range(0, rows, height):
            block = min(height, rows - top)
            for i in range(count):
                start, mean, m2 = base + i * size + top * stride, means[i], variances[i]
                for left in range(0, size, BLOCK_ELEMENTS):
                    before, width, at = float(top * size + left), min(BLOCK_ELEMENTS, size - left), start + left
                    pivot = first_pivot(x, at, width, subtract_mean, zero)
                    mean, m2 = add_block(x, at, block, stride, width, subtract_mean, pivot, before, mean, m2, zero)
                means[i], variances[i] = mean, m2
    for i in range(count):
        if not np.isfinite(variances[i]):
            means[i], variances[i] = wide_moments(x, base + i * size, rows, stride, size, subtract_mean)
        variances[i] /= rows * size
