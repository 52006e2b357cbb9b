"""The forward kernel of `runs`."""

import numpy as np

from normkit.backends.numba.affine import weight_offset
from normkit.backends.numba.compile import cast, forward_operands, inline, jit, kernel, pointer, record
from normkit.backends.numba.epilogue import add_residual, bounds_of, clamp, residual_of
from normkit.backends.numba.memory import fence, load_masked, prefetch
from normkit.backends.numba.output import run_writer
from normkit.backends.numba.runs.moments import moments
from normkit.backends.numba.runs.stats import batch_of_stats, stats_per_batch, write_passes
from normkit.backends.numba.scratch import alloc, fill, free
from normkit.backends.numba.simd import canonicalize_nan, fma, pairwise_storage, splat
from normkit.backends.numba.store_stats import count_batch, store_stats


@inline
def segment_params(run, x, ahead, first, table, residual, bounds):
    """Return mean_hi, factor and shift of a segment: a run, or the part of one that shares a weight."""
    size, at = table.size // 3, first + run
    mean_hi, factor, shift = table[at], table[size + at], table[2 * size + at]
    return canonicalize_nan(x, mean_hi), canonicalize_nan(x, factor), canonicalize_nan(x, shift)


@jit
def normalize_segment(start, i, n, zero, params, x, ahead, first, table, residual, bounds):
    """Return (x - mean_hi) · factor + shift + residual, clamped."""
    mean_hi, factor, shift = params
    if ahead:
        prefetch(x, start + i + ahead)
    y = fma(load_masked(x, start + i, n, zero) - splat(mean_hi), splat(factor), splat(shift))
    return clamp(add_residual(y, residual, start + i, n, zero), bounds)


@inline
def run_params(run, g, stat, x, ahead, stats, lows, affine):
    """Return mean_hi, rstd and shift of a statistic, and the offset of its weights."""
    means, _, rstds = stats
    rstd = rstds[stat + run]
    return means[stat + run], rstd, -lows[run] * rstd, weight_offset(g, stat + run)


@jit
def normalize_run(start, i, n, zero, params, g, stat, x, ahead, stats, lows, affine):
    """Return ((x - mean_hi) · rstd + shift) · weight + bias, with a weight for each element."""
    mean_hi, rstd, shift, offset = params
    weight, bias = affine
    if ahead:
        prefetch(x, start + i + ahead)
    x_hat = fma(load_masked(x, start + i, n, zero) - splat(mean_hi), splat(rstd), splat(shift))
    return fma(x_hat, load_masked(weight, offset + i, n, zero), load_masked(bias, offset + i, n, zero))


write_segments = run_writer(segment_params, normalize_segment, False)
write_runs = run_writer(run_params, normalize_run, True)


@jit
def fill_table(g, stat, count, affine, stats, lows, shifts, table):
    """Fill in mean_hi, factor and shift of each segment of `count` neighbouring statistics."""
    weight, bias = affine
    means, _, rstds = stats
    size, at = table.size // 3, 0
    for i in range(count):
        mean_hi, mean_lo, rstd, first = means[stat + i], lows[i], rstds[stat + i], weight_offset(g, stat + i)
        for segment in range(g.s // g.s_run):
            offset = first + segment * g.s_step
            factor = rstd * weight[offset]
            table[at], table[size + at] = mean_hi, factor
            shift = bias[offset] - mean_lo * factor
            table[2 * size + at] = shift
            if g.shift != 0:  # there is one segment
                shifts[stat + i] = shift
            at += 1


def make_kernel(storage, compute, elementwise_affine, has_bounds, has_residual):
    """Compile the kernel: statistics, unless they are precomputed, and the normalized result."""
    itemsize = np.dtype(storage).itemsize
    has_bounds, has_residual = has_bounds or None, has_residual or None  # of different types, which decide overloads
    stored = storage if elementwise_affine else pairwise_storage(storage)

    @kernel
    def runs_forward(data, part, parts, phase):
        g = record(data)
        x, y, affine, stats, running = forward_operands(g, stored, compute)
        _, variances, rstds = stats
        shifts = pointer(g.shift, compute)
        count_batch(g, part, phase)
        zero = compute(0)
        bounds, residual = bounds_of(g, zero, has_bounds), residual_of(g, stored, has_residual)
        segments, num_stats, streams = g.s // g.s_run, g.a * g.k, g.stream != 0
        if g.precomputed:  # in the order of the memory; each element of a run has the same weight
            run, end, filled = num_stats * g.r * part // parts, num_stats * g.r * (part + 1) // parts, -1
            lows, table = alloc(g.k, zero), alloc(3 * g.k * segments, zero)
            fill(lows, zero)
            one, never = np.int64(1), np.int64(0)
            while run < end:
                a, k = run // (g.r * g.k), run % g.k
                count = min(g.k - k, end - run)
                if filled != a:
                    filled = a
                    for stat in range(a * g.k, a * g.k + g.k):
                        rstds[stat] = cast(1.0 / np.sqrt(float(variances[stat]) + g.eps), zero)
                    fill_table(g, a * g.k, g.k, affine, stats, lows, shifts, table)
                operands = (x, never, k * segments, table, residual, bounds)
                write_segments(y, run * g.s, one, g.s, count * segments, g.s_run, streams, zero, *operands)
                run += count
            free(lows)
            free(table)
        else:
            most = stats_per_batch(g, np.int64(itemsize))
            means_64, variances_64 = alloc(most, 0.0), alloc(most, 0.0)
            lows = alloc(most, zero)
            table = alloc(0 if elementwise_affine else 3 * most * segments, zero)
            stat, end, begin = num_stats * part // parts, num_stats * (part + 1) // parts, np.int64(0)
            while stat < end:
                count, base = batch_of_stats(g, stat, end, most)
                moments(g, x, base, count, means_64, variances_64, zero)
                for i in range(count):
                    lows[i] = store_stats(g, stat + i, means_64[i], variances_64[i], stats, running, zero)
                stride = g.k * g.s
                if elementwise_affine:
                    _, (_, near, ahead) = write_passes(g, count, np.int64(itemsize))  # there is one row
                    run_operands = (g, stat, x, ahead, stats, lows, affine)
                    write_runs(y, base, near, stride, count, g.s, streams, zero, *run_operands)
                else:
                    fill_table(g, stat, count, affine, stats, lows, shifts, table)
                    for last, rows, ahead in write_passes(g, count, np.int64(itemsize)):
                        top, operands = base + last * stride, (x, ahead, begin, table, residual, bounds)
                        if rows:
                            write_segments(y, top, rows, -stride, count * segments, g.s_run, streams, zero, *operands)
                stat += count
            for moment in (means_64, variances_64):
                free(moment)
            for values in (lows, table):
                free(values)
        if streams:
            fence()

    return runs_forward
