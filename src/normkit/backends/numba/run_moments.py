"""Mean and variance of runs: see `runs` for the scheme."""

import numpy as np

from normkit.backends.numba.jit import cast, jit
from normkit.backends.numba.simd import first, fma, lanes, load, load_part, prefetch, splat, take, total

BLOCK = 4096  # numbers whose sum may stay in the compute type
AHEAD = 1024  # numbers that short runs ask for in advance: the next one lies too far off for the processor to guess
SAMPLE = 64  # numbers whose mean stands for that of a block, unless it proves to be far from it
FAR = 0.75  # of the second moment about the sample's mean may be due to its distance from the block's


@jit
def sums_about(x, start, rows, stride, size, pivot, zero):
    """Sums of x - pivot and of its square, over `rows` runs of `size` numbers, `stride` apart."""
    step, about, none = lanes(zero), splat(pivot), splat(zero)
    plain, plain_2, squares, squares_2 = none, none, none, none
    ahead = AHEAD // size * stride
    for at in range(start, start + rows * stride, stride):
        i = 0
        while i + 2 * step <= size:
            prefetch(x, at + i + ahead)
            prefetch(x, at + i + ahead + step)
            d, d_2 = load(x, at + i) - about, load(x, at + i + step) - about
            plain += d
            plain_2 += d_2
            squares, squares_2 = fma(d, d, squares), fma(d_2, d_2, squares_2)
            i += 2 * step
        while i < size:
            rest = min(step, size - i)
            d = first(take(x, at + i, rest, zero) - about, rest)
            plain += d
            squares = fma(d, d, squares)
            i += step
    return float(total(plain + plain_2)), float(total(squares + squares_2))


@jit
def merge(count, mean, m2, other_count, other_mean, other_m2):
    """Count, mean and sum of squared deviations of two samples together."""
    if count == 0.0:  # not by the formula: the square of a huge mean may overflow
        return other_count, other_mean, other_m2
    together = count + other_count
    delta = other_mean - mean
    share = other_count / together
    return together, mean + delta * share, m2 + other_m2 + delta * delta * (count * share)


@jit
def number(x, index):
    """x[index] in the compute type."""
    return total(load_part(x, index, 1))


@jit
def wide_moments(x, base, rows, stride, size, centred):
    """`moments` with every sum in float64: for squares that the compute type cannot hold."""
    plain, m2 = 0.0, 0.0
    for row in range(rows):
        for i in range(size):
            plain += float(number(x, base + row * stride + i))
    mean = plain / (rows * size) if centred else 0.0
    for row in range(rows):
        for i in range(size):
            deviation = float(number(x, base + row * stride + i)) - mean
            m2 += deviation * deviation
    return mean, m2


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
                sample = min(width, SAMPLE)
                pivot = number(x, start)
                pivot += cast(sums_about(x, start, 1, stride, sample, pivot, zero)[0] / sample, zero)
            plain, squares = sums_about(x, start, block_rows, stride, width, pivot, zero)
            if centred and plain * plain > FAR * n * squares:
                pivot += cast(plain / n, zero)
                plain, squares = sums_about(x, start, block_rows, stride, width, pivot, zero)
            if centred:
                rest = plain / n
                count, mean, m2 = merge(count, mean, m2, n, float(pivot) + rest, max(squares - rest * plain, 0.0))
            else:
                count += n
                m2 += squares
    if not np.isfinite(m2):
        mean, m2 = wide_moments(x, base, rows, stride, size, centred)
    return mean, m2 / count
