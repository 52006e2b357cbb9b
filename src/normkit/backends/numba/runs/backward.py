"""The backward kernel of `runs`.

With g = dy · weight, dx = rstd · (g - mean(g) - x_hat · mean(g · x_hat)), or rstd · g if mean and rstd are precomputed.
dweight and dbias are the sums of dy · x_hat and of dy.
"""

import numpy as np

from normkit.backends.numba.affine import weight_offset
from normkit.backends.numba.compile import cast, inline, jit, kernel, pointer, record
from normkit.backends.numba.epilogue import bounds_of, mask_params
from normkit.backends.numba.memory import fence, load_masked, prefetch, store_masked
from normkit.backends.numba.output import run_writer
from normkit.backends.numba.record import REDUCE_PARTIALS
from normkit.backends.numba.runs.moments import BLOCK_ELEMENTS
from normkit.backends.numba.runs.stats import batch_of_stats, stats_per_batch, write_passes
from normkit.backends.numba.runs.sums import masked_terms, sum_masked_terms, sum_weighted_terms
from normkit.backends.numba.scratch import alloc, fill, free
from normkit.backends.numba.simd import canonicalize_nan, fma, pairwise_storage, splat
from normkit.backends.numba.weight_grads import partial_offsets, reduce_partials


@inline
def segment_params(run, tensors, ahead, table, g, stat, masking):
    """Return mean_hi, rstd, shift, the coefficients of 1, x_hat and dy in dx, and the mask parameters of a segment.

    Last, whether the statistics are precomputed.
    """
    at, x = 6 * run, tensors[0]
    mean_hi, rstd, shift = table[at], table[at + 1], table[at + 2]
    constant, x_hat_factor, dy_factor = table[at + 3], table[at + 4], table[at + 5]
    params = mask_params(g, stat + run, *masking)
    scaling = canonicalize_nan(x, mean_hi), canonicalize_nan(x, rstd), canonicalize_nan(x, shift)
    factors = canonicalize_nan(x, constant), canonicalize_nan(x, x_hat_factor), canonicalize_nan(x, dy_factor)
    return *scaling, *factors, params, g.precomputed != 0


@jit
def segment_dx(start, i, n, zero, params, tensors, ahead, table, g, stat, masking):
    """Return dx of elements that share a weight."""
    x, dy = tensors
    mean_hi, rstd, shift, constant, x_hat_factor, dy_factor, mask, precomputed = params
    if ahead:
        prefetch(x, start + i + ahead)
        prefetch(dy, start + i + ahead)
    d, masked_dy = masked_terms(start, i, n, zero, x, dy, mean_hi, mask)
    if precomputed:  # x has no part in it: 0 · x_hat would be NaN where x is NaN or infinite
        return masked_dy * splat(dy_factor)
    x_hat = fma(d, splat(rstd), splat(shift))
    return fma(masked_dy, splat(dy_factor), fma(x_hat, splat(x_hat_factor), splat(constant)))


@inline
def run_params(run, batch, tensors, ahead, stats, table, weight, partials):
    """Return mean_hi, rstd, shift, the coefficients of 1 and x_hat in dx, and the offsets of weights and gradients."""
    g, partial, stat = batch
    means, rstds = stats
    at, of, rstd = 3 * run, stat + run, rstds[stat + run]
    shift = cast(table[at], rstd)
    constant, x_hat_factor = cast(table[at + 1], rstd) * -rstd, cast(table[at + 2], rstd) * -rstd
    offset = weight_offset(g, of)
    dweight, dbias = partial_offsets(g, partial, offset)
    return means[of], rstd, shift, constant, x_hat_factor, offset, dweight, dbias


@jit
def run_dx(start, i, n, zero, params, batch, tensors, ahead, stats, table, weight, partials):
    """Return dx of elements with a weight each; add dy · x_hat and dy to a partial dweight and dbias."""
    x, dy = tensors
    mean_hi, rstd, shift, constant, x_hat_factor, offset, dweight, dbias = params
    if ahead:
        prefetch(x, start + i + ahead)
        prefetch(dy, start + i + ahead)
    dy_i = load_masked(dy, start + i, n, zero)
    x_hat = fma(load_masked(x, start + i, n, zero) - splat(mean_hi), splat(rstd), splat(shift))
    store_masked(partials, dweight + i, fma(dy_i, x_hat, load_masked(partials, dweight + i, n, zero)), n, zero)
    store_masked(partials, dbias + i, dy_i + load_masked(partials, dbias + i, n, zero), n, zero)
    weighted_dy = dy_i * load_masked(weight, offset + i, n, zero)
    return fma(weighted_dy, splat(rstd), fma(x_hat, splat(x_hat_factor), splat(constant)))


write_segments = run_writer(segment_params, segment_dx, False)
write_runs = run_writer(run_params, run_dx, True)


@jit
def means_of_sums(g, n, sums, rstd, zero):
    """Return mean_lo and the means of g and of g · x_hat, from the sums over n elements; 0 where dx lacks them."""
    d_sum, g_sum, gd_sum = sums
    if g.precomputed:
        return 0.0, zero, zero
    mean_lo = d_sum / n if g.subtract_mean else 0.0
    mean_gx = cast((gd_sum - mean_lo * g_sum) * float(rstd) / n, zero)
    return mean_lo, cast(g_sum / n, zero) if g.subtract_mean else zero, mean_gx


@jit
def sum_runs(batch, tensors, stats, weight, partials, table, zero):
    """Fill in shift and the means of g and of g · x_hat of neighbouring statistics with a weight for each element.

    The first of them is so many statistics into its partial gradients: `since`.
    """
    g, partial, since, stat, count, base = batch
    x, dy = tensors
    means, rstds = stats
    length, stride, one = g.s, g.k * g.s, np.int64(1)
    for i in range(count):
        start, mean_hi, first = base + i * length, means[stat + i], weight_offset(g, stat + i)
        d_sum, g_sum, gd_sum = 0.0, 0.0, 0.0
        for at in range(start, start + g.r * stride, stride):
            for left in range(0, length, BLOCK_ELEMENTS):
                width, offset = min(BLOCK_ELEMENTS, length - left), first + left
                sums = sum_weighted_terms(at + left, one, stride, width, zero, x, dy, mean_hi, weight, offset)
                d_sum += sums[0]
                g_sum += sums[1]
                gd_sum += sums[2]
        table[3 * i], table[3 * i + 1], table[3 * i + 2] = d_sum, g_sum, gd_sum
        if since + i < g.a_period:  # the first of these partial gradients that has these weights
            for to in partial_offsets(g, partial, first):
                for j in range(to, to + length):
                    partials[j] = zero
    for i in range(count):  # the processor sums the next statistic before the sums of one are complete
        rstd, at = rstds[stat + i], 3 * i
        mean_lo, mean_g, mean_gx = means_of_sums(
            g, float(g.r * length), (table[at], table[at + 1], table[at + 2]), rstd, zero
        )
        table[at], table[at + 1], table[at + 2] = -mean_lo * float(rstd), mean_g, mean_gx


@jit
def sum_segments(g, stat, count, base, tensors, means, sums, masking, zero):
    """Sum d of each of some neighbouring statistics, and dy and dy · d of each of their segments."""
    x, dy = tensors
    d_sums, dy_sums, dyd_sums = sums
    rows, run, stride, segments = g.r, g.s_run, g.k * g.s, g.s // g.s_run
    height = max(1, BLOCK_ELEMENTS // run)
    for top in range(0, rows, height):
        block, start, at = min(height, rows - top), base + top * stride, 0
        for i in range(count):
            mean_hi, params = means[stat + i], mask_params(g, stat + i, *masking)
            for _ in range(segments):
                for left in range(0, run, BLOCK_ELEMENTS):
                    width = min(BLOCK_ELEMENTS, run - left)
                    d_sum, dy_sum, dyd_sum = sum_masked_terms(
                        start + left, block, stride, width, zero, x, dy, mean_hi, params
                    )
                    d_sums[i] += d_sum
                    dy_sums[at] += dy_sum
                    dyd_sums[at] += dyd_sum
                start += run
                at += 1


@jit
def fill_table(g, stat, count, weight, stats, sums, partials, table, zero):
    """Fill in what `segment_params` reads of each segment; store partial dweights and dbiases."""
    means, rstds = stats
    d_sums, dy_sums, dyd_sums = sums
    segments, n = g.s // g.s_run, float(g.r * g.s)
    for i in range(count):
        begin, rstd, offset = i * segments, rstds[stat + i], weight_offset(g, stat + i)
        g_sum, gd_sum = 0.0, 0.0
        for segment in range(segments):
            factor = float(weight[offset + segment * g.s_step])
            g_sum += factor * dy_sums[begin + segment]
            gd_sum += factor * dyd_sums[begin + segment]
        mean_lo, mean_g, mean_gx = means_of_sums(g, n, (d_sums[i], g_sum, gd_sum), rstd, zero)
        dweight, dbias = partial_offsets(g, (stat + i) // g.k // max(g.chunk, g.a_period), offset)
        for segment in range(segments):
            at, step = begin + segment, segment * g.s_step
            partials[dweight + step] = cast((dyd_sums[at] - mean_lo * dy_sums[at]) * float(rstd), zero)
            partials[dbias + step] = cast(dy_sums[at], zero)
            to = 6 * at
            table[to], table[to + 1] = means[stat + i], rstd
            table[to + 2], table[to + 3] = cast(-mean_lo * float(rstd), zero), mean_g * -rstd
            table[to + 4], table[to + 5] = mean_gx * -rstd, weight[offset + step] * rstd


def make_kernel(storage, compute, elementwise_affine, has_bounds):
    """Compile the kernel: dx, and partial dweights and dbiases."""
    itemsize, has_bounds = np.dtype(storage).itemsize, has_bounds or None  # of different types, which decide overloads
    stored = storage if elementwise_affine else pairwise_storage(storage)

    @kernel
    def runs_backward(data, part, parts, phase):
        g = record(data)
        tensors = pointer(g.x, stored), pointer(g.dy, stored)
        dx = pointer(g.dx, stored)
        weight = pointer(g.weight, compute)
        stats = pointer(g.mean, compute), pointer(g.rstd, compute)
        partials = pointer(g.partials, compute)
        zero, streams = compute(0), g.stream != 0
        masking = weight, stats[1], pointer(g.shift, compute), bounds_of(g, zero, has_bounds)
        most, stride, segments = stats_per_batch(g, np.int64(2 * itemsize)), g.k * g.s, g.s // g.s_run
        if phase == REDUCE_PARTIALS:
            reduce_partials(g, compute, part, parts)
        elif elementwise_affine:
            table = alloc(3 * most, 0.0)
            chunks = (g.a + g.chunk - 1) // g.chunk
            for task in range(chunks * g.k * part // parts, chunks * g.k * (part + 1) // parts):
                chunk, k = task // g.k, task % g.k
                begin, end = chunk * g.chunk, min((chunk + 1) * g.chunk, g.a)
                a = begin
                while a < end:
                    stat = a * g.k + k  # whose neighbour is that of the next a where there is one k
                    count, base = batch_of_stats(g, stat, end if g.k == 1 else stat + 1, most)
                    batch = (g, chunk, a - begin, stat, count, base)
                    sum_runs(batch, tensors, stats, weight, partials, table, zero)
                    _, (_, near, ahead) = write_passes(g, count, np.int64(2 * itemsize))  # there is one row
                    run_operands = ((g, chunk, stat), tensors, ahead, stats, table, weight, partials)
                    write_runs(dx, base, near, stride, count, g.s, streams, zero, *run_operands)
                    a += count
            free(table)
        else:
            d_sums = alloc(most, 0.0)
            dy_sums, dyd_sums = alloc(most * segments, 0.0), alloc(most * segments, 0.0)
            segment_table = alloc(6 * most * segments, zero)
            stat, end = g.a * g.k * part // parts, g.a * g.k * (part + 1) // parts
            while stat < end:
                count, base = batch_of_stats(g, stat, end, most)
                sums = (d_sums, dy_sums, dyd_sums)
                for values in sums:
                    fill(values, 0.0)
                sum_segments(g, stat, count, base, tensors, stats[0], sums, masking, zero)
                fill_table(g, stat, count, weight, stats, sums, partials, segment_table, zero)
                if g.dx != 0:
                    for last, rows, ahead in write_passes(g, count, np.int64(2 * itemsize)):
                        top, operands = base + last * stride, (tensors, ahead, segment_table, g, stat, masking)
                        if rows:
                            write_segments(dx, top, rows, -stride, count * segments, g.s_run, streams, zero, *operands)
                stat += count
            for values in (d_sums, dy_sums, dyd_sums):
                free(values)
            free(segment_table)
        if streams:
            fence()

    return runs_backward
