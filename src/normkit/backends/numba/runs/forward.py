"""The forward kernel of `runs`."""

import numpy as np

from normkit.backends.numba.compile import cast, inline, jit, kernel, pointer, record, tensors_of_forward
from normkit.backends.numba.epilogue import bounds_of, keep_between, plus, residual_of
from normkit.backends.numba.memory import fence, prefetch, take
from normkit.backends.numba.output import writer
from normkit.backends.numba.runs.moments import moments
from normkit.backends.numba.scratch import fill, free, numbers
from normkit.backends.numba.simd import fma, in_any_order, splat, with_plain_nan
from normkit.backends.numba.units import group_of, passes, place_of, units_together
from normkit.backends.numba.update_stats import count_batch, keep_statistics


@inline
def scales(run, x, ahead, first, coefficients, residual, bounds):
    """high, factor and shift of a piece."""
    size, at = coefficients.size // 3, first + run
    high, factor, shift = coefficients[at], coefficients[size + at], coefficients[2 * size + at]
    return with_plain_nan(x, high), with_plain_nan(x, factor), with_plain_nan(x, shift)


@jit
def scale(at, i, n, zero, known, x, ahead, first, coefficients, residual, bounds):
    """(x - high) · factor + shift, and what is added to it, between the bounds."""
    high, factor, shift = known
    if ahead:
        prefetch(x, at + i + ahead)
    y = fma(take(x, at + i, n, zero) - splat(high), splat(factor), splat(shift))
    return keep_between(plus(y, residual, at + i, n, zero), bounds)


@inline
def scales_by(run, g, unit, x, ahead, means, rstds, lows, weight, bias):
    """high, rstd and shift of a unit, and where its weights begin."""
    rstd = rstds[unit + run]
    return means[unit + run], rstd, -lows[run] * rstd, place_of(g, unit + run)


@jit
def scale_by(at, i, n, zero, known, g, unit, x, ahead, means, rstds, lows, weight, bias):
    """((x - high) · rstd + shift) · weight + bias, a weight for each number."""
    high, rstd, shift, place = known
    if ahead:
        prefetch(x, at + i + ahead)
    x_hat = fma(take(x, at + i, n, zero) - splat(high), splat(rstd), splat(shift))
    return fma(x_hat, take(weight, place + i, n, zero), take(bias, place + i, n, zero))


write_pieces = writer(scales, scale, False)
write_units = writer(scales_by, scale_by, True)


@jit
def fill_coefficients(g, unit, count, weight, bias, means, rstds, lows, shifts, coefficients):
    """high, factor and shift of each piece of `count` neighbouring units; a piece is what has a weight of its own."""
    size, at = coefficients.size // 3, 0
    for i in range(count):
        high, low, rstd, place = means[unit + i], lows[i], rstds[unit + i], place_of(g, unit + i)
        for piece in range(g.s // g.s_run):
            where = place + piece * g.s_step
            factor = rstd * weight[where]
            coefficients[at], coefficients[size + at] = high, factor
            shift = bias[where] - low * factor
            coefficients[2 * size + at] = shift
            if g.shift != 0:  # there is one piece
                shifts[unit + i] = shift
            at += 1


def make_kernel(storage, compute, by_place, clamped, added):
    """Statistics (unless given) and the normalized result; `by_place`: each number of a run has its own weight."""
    itemsize = np.dtype(storage).itemsize
    clamped, added = clamped or None, added or None  # a type each: it decides what is compiled
    stored = storage if by_place else in_any_order(storage)

    @kernel
    def runs_forward(data, part, parts, phase):
        g = record(data)
        x, y, weight, bias, statistics = tensors_of_forward(g, stored, compute)
        means, variances, rstds, _, _ = statistics
        shifts = pointer(g.shift, compute)
        count_batch(g, part, phase)
        zero = compute(0)
        bounds, residual = bounds_of(g, zero, clamped), residual_of(g, stored, added)
        pieces, units, streams = g.s // g.s_run, g.a * g.k, g.stream != 0
        if g.precomputed:  # in the order of the memory; each number of a run has the same weight
            run, end, filled = units * g.r * part // parts, units * g.r * (part + 1) // parts, -1
            lows, coefficients = numbers(g.k, zero), numbers(3 * g.k * pieces, zero)
            fill(lows, zero)
            one, never = np.int64(1), np.int64(0)
            while run < end:
                a, k = run // (g.r * g.k), run % g.k
                count = min(g.k - k, end - run)
                if filled != a:
                    filled = a
                    for unit in range(a * g.k, a * g.k + g.k):
                        rstds[unit] = cast(1.0 / np.sqrt(float(variances[unit]) + g.eps), zero)
                    fill_coefficients(g, a * g.k, g.k, weight, bias, means, rstds, lows, shifts, coefficients)
                there = (x, never, k * pieces, coefficients, residual, bounds)
                write_pieces(y, run * g.s, one, g.s, count * pieces, g.s_run, streams, zero, *there)
                run += count
            free(lows)
            free(coefficients)
        else:
            together = units_together(g, np.int64(itemsize))
            some_means, some_variances = numbers(together, 0.0), numbers(together, 0.0)
            lows = numbers(together, zero)
            coefficients = numbers(0 if by_place else 3 * together * pieces, zero)
            unit, end, begin = units * part // parts, units * (part + 1) // parts, np.int64(0)
            while unit < end:
                count, base = group_of(g, unit, end, together)
                moments(g, x, base, count, some_means, some_variances, zero)
                for i in range(count):
                    lows[i] = keep_statistics(g, unit + i, some_means[i], some_variances[i], *statistics, zero)
                stride = g.k * g.s
                if by_place:
                    _, (_, near, ahead) = passes(g, count, np.int64(itemsize))  # there is one row
                    known = (g, unit, x, ahead, means, rstds, lows, weight, bias)
                    write_units(y, base, near, stride, count, g.s, streams, zero, *known)
                else:
                    fill_coefficients(g, unit, count, weight, bias, means, rstds, lows, shifts, coefficients)
                    for last, rows, ahead in passes(g, count, np.int64(itemsize)):
                        top, told = base + last * stride, (x, ahead, begin, coefficients, residual, bounds)
                        if rows:
                            write_pieces(y, top, rows, -stride, count * pieces, g.s_run, streams, zero, *told)
                unit += count
            for statistic in (some_means, some_variances):
                free(statistic)
            for scale in (lows, coefficients):
                free(scale)
        if streams:
            fence()

    return runs_forward
