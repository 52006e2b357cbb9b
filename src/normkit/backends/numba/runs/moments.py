"""Mean and variance of runs: see `runs` for the scheme."""

import numpy as np

from normkit.backends.numba.compile import cast, jit
from normkit.backends.numba.memory import load, load_part, prefetch, take
from normkit.backends.numba.simd import first, fma, lanes, splat, total

BLOCK = 4096  # numbers whose sum may stay in the compute type
AHEAD = 1024  # a run of as many is asked for while the one before it is summed,
NEXT = 512  # or, of shorter runs, what lies so far on: the runs of the next units
SAMPLE = 64  # numbers whose mean stands for that of a block, unless it proves to be far from it
FAR = 0.75  # of the second moment about the sample's mean may be due to its distance from the block's


@jit
def distance(size, stride):
    """How far ahead to ask for runs of `size` numbers, `stride` apart; the processor finds what follows by itself."""
    return NEXT if size < AHEAD else AHEAD // size * stride


@jit
def sums_about(x, start, rows, stride, size, pivot, zero):
    """Sums of x - pivot and of its square, over `rows` runs of `size` numbers, `stride` apart."""
    step, about, none = lanes(zero), splat(pivot), splat(zero)
    plain, plain_2, squares, squares_2 = none, none, none, none
    ahead = distance(size, stride)
    whole = size - size % (2 * step)
    rest = min(step, size - whole)
    rest_2 = size - whole - rest
    for at in range(start, start + rows * stride, stride):
        for i in range(at, at + whole, 2 * step):
            prefetch(x, i + ahead)
            prefetch(x, i + ahead + step)
            d, d_2 = load(x, i) - about, load(x, i + step) - about
            plain += d
            plain_2 += d_2
            squares, squares_2 = fma(d, d, squares), fma(d_2, d_2, squares_2)
        if rest:
            d = first(x, load_part(x, at + whole, rest) - about, rest)
            plain += d
            squares = fma(d, d, squares)
        if rest_2:
            d = first(x, load_part(x, at + whole + step, rest_2) - about, rest_2)
            plain_2 += d
            squares_2 = fma(d, d, squares_2)
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
def mean_of_beginning(x, start, size, centred, zero):
    """The mean of the first of `size` numbers, to be close to that of all; 0 where it is not to be taken away."""
    if not centred:
        return zero
    plain, step, count = splat(zero), lanes(zero), min(size, SAMPLE)
    for i in range(0, count, step):
        plain += take(x, start + i, count - i, zero)
    return cast(float(total(plain)) / count, zero)


@jit
def add_block(x, start, rows, stride, size, centred, pivot, count, mean, m2, zero):
    """Mean and sum of squared deviations of `count` numbers and of a block, at most BLOCK numbers about pivot."""
    n = float(rows * size)
    if not centred:
        return 0.0, m2 + sums_about(x, start, rows, stride, size, zero, zero)[1]
    plain, squares = sums_about(x, start, rows, stride, size, pivot, zero)
    if plain * plain > FAR * n * squares:
        pivot += cast(plain / n, zero)
        plain, squares = sums_about(x, start, rows, stride, size, pivot, zero)
    rest = plain / n
    _, mean, m2 = merge(count, mean, m2, n, float(pivot) + rest, max(squares - rest * plain, 0.0))
    return mean, m2


@jit
def moments(g, x, base, count, means, variances, zero):
    """Mean and biased variance of `count` neighbouring units, which begin at `base`.

    All units take one block of rows before any takes the next: what lies together in memory is read together.
    """
    rows, size, stride, centred = g.r, g.s, g.k * g.s, g.subtract_mean != 0
    if rows == 1 and size <= BLOCK:
        for unit in range(count):  # each waits for all of its numbers: the processor goes on with the next meanwhile
            means[unit] = mean_of_beginning(x, base + unit * size, size, centred, zero)
        for unit in range(count):
            start, pivot = base + unit * size, cast(means[unit], zero)
            means[unit], variances[unit] = add_block(x, start, rows, stride, size, centred, pivot, 0.0, 0.0, 0.0, zero)
    else:
        for unit in range(count):
            means[unit], variances[unit] = 0.0, 0.0
        height = max(1, BLOCK // size)
        for top in range(0, rows, height):
            block = min(height, rows - top)
            for unit in range(count):
                start, mean, m2 = base + unit * size + top * stride, means[unit], variances[unit]
                for left in range(0, size, BLOCK):
                    before, width = float(top * size + left), min(BLOCK, size - left)
                    pivot = mean_of_beginning(x, start + left, width, centred, zero)
                    mean, m2 = add_block(x, start + left, block, stride, width, centred, pivot, before, mean, m2, zero)
                means[unit], variances[unit] = mean, m2
    for unit in range(count):
        if not np.isfinite(variances[unit]):
            means[unit], variances[unit] = wide_moments(x, base + unit * size, rows, stride, size, centred)
        variances[unit] /= rows * size
