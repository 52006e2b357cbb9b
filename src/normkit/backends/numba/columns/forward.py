"""The forward kernel of `columns`."""

import numpy as np

from normkit.backends.numba.affine import weight_offset
from normkit.backends.numba.columns.moments import merge_chunks, moments, repeat
from normkit.backends.numba.compile import cast, forward_operands, inline, jit, kernel, pointer, record
from normkit.backends.numba.epilogue import add_residual, bounds_of, clamp, residual_of
from normkit.backends.numba.memory import (
    elements_per_line,
    fence,
    load,
    load_masked,
    store,
    store_masked,
    until_aligned,
)
from normkit.backends.numba.output import column_writer, run_writer, store_streaming
from normkit.backends.numba.scratch import alloc, array, free, row_of
from normkit.backends.numba.simd import fma, lanes, splat
from normkit.backends.numba.store_stats import count_batch, store_stats
from normkit.backends.numba.transpose import transpose


@inline
def column_params(c, n, zero, x, tables, residual, bounds):
    """Return mean_hi, factor and shift of n columns."""
    size = tables.size // 3
    mean_hi, factor = load_masked(tables, c, n, zero), load_masked(tables, size + c, n, zero)
    return mean_hi, factor, load_masked(tables, 2 * size + c, n, zero)


@inline
def normalize_columns(offset, n, zero, params, x, tables, residual, bounds):
    """Return (x - mean_hi) · factor + shift + residual, clamped; each column has parameters of its own."""
    mean_hi, factor, shift = params
    y = fma(load_masked(x, offset, n, zero) - mean_hi, factor, shift)
    return clamp(add_residual(y, residual, offset, n, zero), bounds)


@jit
def row_params(run, row, x, scaling, affine):
    """Return the weight and the bias of a row."""
    weight, bias = affine
    return weight[row], bias[row]


@jit
def normalize_row(start, i, n, zero, params, row, x, scaling, affine):
    """Return ((x - mean_hi) · factor + shift) · weight + bias, with a weight for the row."""
    weight, bias = params
    mean_hi, factor, shift = scaling
    d = load_masked(x, start + i, n, zero) - load_masked(mean_hi, i, n, zero)
    x_hat = fma(d, load_masked(factor, i, n, zero), load_masked(shift, i, n, zero))
    return fma(x_hat, splat(weight), splat(bias))


write_rows = column_writer(column_params, normalize_columns)
write_row = run_writer(row_params, normalize_row, True)


@jit
def write_transposed(g, y, to, start, columns, squares, streams, zero, x, scaling, affine):
    """Write a tile whose rows each have their own weight, with its rows innermost: y[to + column · rows + row].

    It is cut into squares, each of which is transposed; what is left at the ends is made a square first.
    """
    square, transposed = squares
    mean_hi, factor, shift = scaling
    weight, bias = affine
    step, rows, width = lanes(zero), g.r, g.k * g.s
    streams = streams and elements_per_line(y) == step and rows % step == 0 and until_aligned(y, to) == 0
    for c in range(0, columns, step):
        n, begin = min(step, columns - c), to + c * rows
        means, factors, shifts = mean_hi[c : c + n], factor[c : c + n], shift[c : c + n]
        for top in range(0, rows, step):
            height, at = min(step, rows - top), start + top * width + c
            if n == step and height == step:
                transpose(x, at, width, transposed)
            else:
                for row in range(height):
                    store(square, row * step, load_masked(x, at + row * width, n, zero))
                transpose(square, np.int64(0), step, transposed)
            weights, biases = splat(weight[0]), splat(bias[0])
            if g.r_step:
                weights, biases = load_masked(weight, top, height, zero), load_masked(bias, top, height, zero)
            for k in range(n):
                x_hat = fma(load(transposed, k * step) - splat(means[k]), splat(factors[k]), splat(shifts[k]))
                store_streaming(y, begin + k * rows + top, fma(x_hat, weights, biases), height, streams, zero)


@jit
def fill_tables(g, affine, stats, lows, shifts, a, left, columns, tables, zero):
    """Fill in mean_hi, factor and shift of each column of a tile; repeated for each row that is folded in."""
    weight, bias = affine
    means, _, rstds = stats
    wide, step = columns * g.fold, lanes(zero)
    if g.s == 1 and g.r_step != 0:  # each column is a statistic, and rows have the weights
        first, precomputed = a * g.k + left, g.precomputed != 0
        for c in range(0, columns, step):
            n = columns - c
            rstd, minus_lo = load_masked(rstds, first + c, n, zero), splat(zero)
            if not precomputed:
                minus_lo -= load_masked(lows, first + c, n, zero)
            store_masked(tables, c, load_masked(means, first + c, n, zero), n, zero)
            store_masked(tables, wide + c, rstd, n, zero)
            store_masked(tables, 2 * wide + c, minus_lo * rstd, n, zero)
        return
    mean_hi, factor, shift = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
    c, first_offset = 0, weight_offset(g, a * g.k)
    for k in range(left // g.s, (left + columns) // g.s):
        stat, offset = a * g.k + k, first_offset + k * g.k_step
        mean_lo = zero if g.precomputed else lows[stat]
        for s in range(g.s):
            mean_hi[c], factor[c], shift[c] = means[stat], rstds[stat], zero
            if g.r_step == 0:
                at = offset + s // g.s_run * g.s_step
                factor[c] *= weight[at]
                shift[c] = bias[at]
            shift[c] -= mean_lo * factor[c]
            c += 1
        if g.shift != 0:  # a statistic has one weight
            shifts[stat] = shift[c - 1]
    for table in (mean_hi, factor, shift):
        repeat(table, columns)


@jit
def merge_stats(g, chunk_sums, stats, running, lows, a, k0, k1, zero):
    """Merge the chunks of the statistics k0 … k1 of one a, and store them."""
    width = g.k * g.s
    chunks = (g.r + g.chunk - 1) // g.chunk
    if chunks == 1 and g.s == 1:  # there is nothing to merge
        at, count = a * 2 * width, float(g.r)
        for k in range(k0, k1):
            mean, var = chunk_sums[at + k], chunk_sums[at + width + k] / count
            lows[a * g.k + k] = store_stats(g, a * g.k + k, mean, var, stats, running, zero)
        return
    means, m2 = alloc(k1 - k0, 0.0), alloc(k1 - k0, 0.0)
    merge_chunks(chunk_sums, a * chunks * 2 * width + k0 * g.s, chunks, width, g.r, g.chunk, g.s, means, m2)
    for k in range(k0, k1):
        stat, var = a * g.k + k, m2[k - k0] / (g.r * g.s)
        lows[stat] = store_stats(g, stat, means[k - k0], var, stats, running, zero)
    free(means)
    free(m2)


def make_kernel(storage, compute, has_bounds, has_residual):
    """Compile the kernel: statistics, unless they are precomputed, and the normalized result."""
    has_bounds, has_residual = has_bounds or None, has_residual or None  # of different types, which decide overloads

    @kernel
    def columns_forward(data, part, parts, phase):
        g = record(data)
        x, y, affine, stats, running = forward_operands(g, storage, compute)
        _, variances, rstds = stats
        lows, shifts = pointer(g.coefficients, compute), pointer(g.shift, compute)
        zero, one = compute(0), np.int64(1)
        bounds, residual = bounds_of(g, zero, has_bounds), residual_of(g, storage, has_residual)
        streams = g.stream != 0
        count_batch(g, part, phase)
        rows, width = g.r, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        chunk_sums = array(pointer(g.chunk_sums, np.float64), g.a * chunks * 2 * width)
        # phase 0: a task is a tile of one a, all of its chunks; 1 and 3: one chunk of it; 2: the statistics of one k
        chunk_tasks = 1 if phase == 0 else chunks
        tasks = g.a * g.k if phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                merge_stats(g, chunk_sums, stats, running, lows, a, k, stop, zero)
                begin += stop - k
            return
        work, all_tables = alloc(3 * g.tile * g.fold, zero), alloc(3 * g.tile * g.fold, zero)
        squares = alloc(lanes(zero) * lanes(zero), zero), alloc(lanes(zero) * lanes(zero), zero)
        filled = -1
        for step in range(end - begin):
            task = end - 1 - step if phase == 3 else begin + step  # what was read last may be in a cache still
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            columns = right - left
            tables = all_tables[: 3 * columns * g.fold]
            first_chunk, last_chunk = (0, chunks) if phase == 0 else (chunk, chunk + 1)
            if phase <= 1 and not g.precomputed:
                for j in range(first_chunk, last_chunk):
                    at = (a * chunks + j) * 2 * width + left
                    moments(
                        x,
                        (a * rows + j * g.chunk) * width + left,
                        min(g.chunk, rows - j * g.chunk),
                        width,
                        g.fold,
                        chunk_sums[at : at + columns],
                        chunk_sums[at + width : at + width + columns],
                        work,
                        g.subtract_mean != 0,
                        zero,
                    )
            if phase == 1:
                continue
            if filled != a * tiles + tile:
                filled = a * tiles + tile
                if g.precomputed:
                    for stat in range(a * g.k + left // g.s, a * g.k + right // g.s):
                        rstds[stat] = cast(1.0 / np.sqrt(float(variances[stat]) + g.eps), zero)
                elif phase == 0:
                    merge_stats(g, chunk_sums, stats, running, lows, a, left // g.s, right // g.s, zero)
                fill_tables(g, affine, stats, lows, shifts, a, left, columns, tables, zero)
            wide = columns * g.fold
            scaling = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
            if g.transposed:
                to, at = (a * width + left) * rows, a * rows * width + left
                write_transposed(g, y, to, at, columns, squares, streams, zero, x, scaling, affine)
                continue
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                bottom = min((j + 1) * g.chunk, rows)
                row = j * g.chunk
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else one
                    at, n = (a * rows + row) * width + left, columns * fold
                    if g.r_step == 0:
                        height, operands = (bottom - row) // fold, (x, tables, residual, bounds)
                        write_rows(y, at, height, width * fold, n, streams, zero, *operands)
                        row += height * fold
                    else:
                        write_row(y, at, one, n, one, n, streams, zero, row * g.r_step, x, scaling, affine)
                        row += 1
        for scratch in (work, all_tables, *squares):
            free(scratch)
        if streams:
            fence()

    return columns_forward
