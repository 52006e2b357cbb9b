"""Mean and variance of runs: see `runs` for the scheme."""

import numpy as np

from normkit.backends.numba.jit import cast, jit, jit_sum, load, minus

BLOCK = 4096  # numbers whose sum may stay in the compute type
SAMPLE = 256  # numbers whose mean stands for that of a block, unless it proves to be far from it
FAR = 0.75  # of the second moment about the sample's mean may be due to its distance from the block's


@jit_sum
def sum_about(run, pivot, zero):
    total = zero
    for i in range(run.size):
        total += minus(load(run, i), pivot)
    return total


@jit_sum
def sums_about(run, pivot, zero):
    first = zero
    second = zero
    for i in range(run.size):
        deviation = minus(load(run, i), pivot)
        first += deviation
        second += deviation * deviation
    return first, second


@jit
def merge(count, mean, m2, other_count, other_mean, other_m2):
    """Count, mean and sum of squared deviations of two samples together."""
    if count == 0.0:  # not by the formula: the square of a huge mean may overflow
        return other_count, other_mean, other_m2
    total = count + other_count
    delta = other_mean - mean
    return total, mean + delta * (other_count / total), m2 + other_m2 + delta * delta * (count * other_count / total)


@jit
def wide_moments(x, base, rows, stride, size, centred):
    """`moments` with every sum in float64: for squares that the compute type cannot hold."""
    total, m2 = 0.0, 0.0
    for row in range(rows):
        for i in range(size):
            total += float(load(x, base + row * stride + i))
    mean = total / (rows * size) if centred else 0.0
    for row in range(rows):
        for i in range(size):
            deviation = float(load(x, base + row * stride + i)) - mean
            m2 += deviation * deviation
    return mean, m2


@jit
def sums_of_block(x, start, rows, stride, width, pivot, zero):
    """`sums_about` of several runs, added in float64."""
    first, second = 0.0, 0.0
    for at in range(start, start + rows * stride, stride):
        f, s = sums_about(x[at : at + width], pivot, zero)
        first += f
        second += s
    return first, second


@jit
def moments(x, base, rows, stride, size, centred, zero):
    """Mean and biased variance, in float64, of `rows` runs of `size` numbers, `stride` apart."""
    height = max(1, BLOCK // size)
    count, mean, m2 = 0.0, 0.0, 0.0
    for top in range(0, rows, height):
        block_rows = min(height, rows - top)
        for left in range(0, size, BLOCK):
            width = min(BLOCK, size - left)
            start = base + top * stride + left
            n = float(block_rows * width)
            pivot = zero
            if centred:
                pivot = load(x, start)
                sample = min(width, SAMPLE)
                pivot += cast(float(sum_about(x[start : start + sample], pivot, zero)) / sample, zero)
            first, second = sums_of_block(x, start, block_rows, stride, width, pivot, zero)
            if centred and first * first > FAR * n * second:
                pivot += cast(first / n, zero)
                first, second = sums_of_block(x, start, block_rows, stride, width, pivot, zero)
            if centred:
                rest = first / n
                count, mean, m2 = merge(count, mean, m2, n, float(pivot) + rest, max(second - rest * first, 0.0))
            else:
                count += n
                m2 += second
    if not np.isfinite(m2):
        mean, m2 = wide_moments(x, base, rows, stride, size, centred)
    return mean, m2 / count
