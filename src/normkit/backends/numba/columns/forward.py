"""The forward kernel of `columns`."""

import numpy as np

from normkit.backends.numba.columns.moments import fold_moments, moments_of_rows, repeat
from normkit.backends.numba.compile import cast, inline, jit, kernel, pointer, record, tensors_of_forward
from normkit.backends.numba.epilogue import bounds_of, keep_between, plus, residual_of
from normkit.backends.numba.memory import fence, load, per_line, put, store, take, turn, until_stream
from normkit.backends.numba.output import column_writer, leave, writer
from normkit.backends.numba.scratch import array, free, numbers, row_of
from normkit.backends.numba.simd import fma, lanes, splat
from normkit.backends.numba.units import place_of
from normkit.backends.numba.update_stats import count_batch, keep_statistics


@inline
def scales(c, n, zero, x, tables, residual, bounds):
    """high, factor and shift of some columns."""
    size = tables.size // 3
    return take(tables, c, n, zero), take(tables, size + c, n, zero), take(tables, 2 * size + c, n, zero)


@inline
def scale(at, n, zero, known, x, tables, residual, bounds):
    """(x - high) · factor + shift, each of its own column, and what is added to it, between the bounds."""
    high, factor, shift = known
    return keep_between(plus(fma(take(x, at, n, zero) - high, factor, shift), residual, at, n, zero), bounds)


@jit
def scales_of(run, row, x, high, factor, shift, weight, bias):
    """The weight and the bias of a row."""
    return weight[row], bias[row]


@jit
def scale_of(at, i, n, zero, known, row, x, high, factor, shift, weight, bias):
    """The same as `scale`, times the weight and plus the bias of the row."""
    row_weight, row_bias = known
    x_hat = fma(take(x, at + i, n, zero) - take(high, i, n, zero), take(factor, i, n, zero), take(shift, i, n, zero))
    return fma(x_hat, splat(row_weight), splat(row_bias))


write_rows = column_writer(scales, scale)
write_row = writer(scales_of, scale_of, True)


@jit
def write_turned(g, y, to, at, columns, square, turned, streams, zero, x, high, factor, shift, weight, bias):
    """The result of a tile whose rows each have their own weight, with its rows innermost: y[to + column · rows + row].

    It is taken square by square, each of which is turned; what is left at the ends is made a square first.
    """
    step, rows, width = lanes(zero), g.r, g.k * g.s
    streams = streams and per_line(y) == step and rows % step == 0 and until_stream(y, to) == 0
    for c in range(0, columns, step):
        n, place = min(step, columns - c), to + c * rows
        highs, factors, shifts = high[c : c + n], factor[c : c + n], shift[c : c + n]
        for top in range(0, rows, step):
            height, start = min(step, rows - top), at + top * width + c
            if n == step and height == step:
                turn(x, start, width, turned)
            else:
                for row in range(height):
                    store(square, row * step, take(x, start + row * width, n, zero))
                turn(square, np.int64(0), step, turned)
            weights, biases = splat(weight[0]), splat(bias[0])
            if g.r_step:
                weights, biases = take(weight, top, height, zero), take(bias, top, height, zero)
            for k in range(n):
                x_hat = fma(load(turned, k * step) - splat(highs[k]), splat(factors[k]), splat(shifts[k]))
                leave(y, place + k * rows + top, fma(x_hat, weights, biases), height, streams, zero)


@jit
def fill_scales(g, weight, bias, means, rstds, lows, shifts, a, left, columns, tables, zero):
    """What each column of a tile needs: mean, factor and offset; repeated for each row that is folded in."""
    wide, step = columns * g.fold, lanes(zero)
    if g.s == 1 and g.r_step != 0:  # each column is a statistic, and rows have the weights
        first, given = a * g.k + left, g.precomputed != 0
        for c in range(0, columns, step):
            n = columns - c
            some_rstd, low = take(rstds, first + c, n, zero), splat(zero)
            if not given:
                low -= take(lows, first + c, n, zero)
            put(tables, c, take(means, first + c, n, zero), n, zero)
            put(tables, wide + c, some_rstd, n, zero)
            put(tables, 2 * wide + c, low * some_rstd, n, zero)
        return
    high, scale, shift = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
    c, first_place = 0, place_of(g, a * g.k)
    for k in range(left // g.s, (left + columns) // g.s):
        unit, place = a * g.k + k, first_place + k * g.k_step
        low = zero if g.precomputed else lows[unit]
        for s in range(g.s):
            high[c], scale[c], shift[c] = means[unit], rstds[unit], zero
            if g.r_step == 0:
                at = place + s // g.s_run * g.s_step
                scale[c] *= weight[at]
                shift[c] = bias[at]
            shift[c] -= low * scale[c]
            c += 1
        if g.shift != 0:  # a unit has one weight
            shifts[unit] = shift[c - 1]
    for table in (high, scale, shift):
        repeat(table, columns)


def make_kernel(storage, compute, clamped, added):
    """Statistics (unless given) and the normalized result."""
    clamped, added = clamped or None, added or None  # a type each: it decides what is compiled

    @kernel
    def columns_forward(data, part, parts, phase):
        g = record(data)
        x, y, weight, bias, statistics = tensors_of_forward(g, storage, compute)
        means, variances, rstds, _, _ = statistics
        lows, shifts = pointer(g.coefficients, compute), pointer(g.shift, compute)
        zero, one = compute(0), np.int64(1)
        bounds, residual = bounds_of(g, zero, clamped), residual_of(g, storage, added)
        streams = g.stream != 0
        count_batch(g, part, phase)
        rows, width = g.r, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        partial = array(pointer(g.partial, np.float64), g.a * chunks * 2 * width)
        # phase 0: a task is a tile of one a, all of its chunks; 1 and 3: one chunk of it; 2: the statistics of one k
        chunk_tasks = 1 if phase == 0 else chunks
        tasks = g.a * g.k if phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                finish(g, partial, statistics, lows, a, k, stop, zero)
                begin += stop - k
            return
        work, all_tables = numbers(3 * g.tile * g.fold, zero), numbers(3 * g.tile * g.fold, zero)
        square, turned = numbers(lanes(zero) * lanes(zero), zero), numbers(lanes(zero) * lanes(zero), zero)
        tabulated = -1
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
                    moments_of_rows(
                        x,
                        (a * rows + j * g.chunk) * width + left,
                        min(g.chunk, rows - j * g.chunk),
                        width,
                        g.fold,
                        partial[at : at + columns],
                        partial[at + width : at + width + columns],
                        work,
                        g.subtract_mean != 0,
                        zero,
                    )
            if phase == 1:
                continue
            if tabulated != a * tiles + tile:
                tabulated = a * tiles + tile
                if g.precomputed:
                    for unit in range(a * g.k + left // g.s, a * g.k + right // g.s):
                        rstds[unit] = cast(1.0 / np.sqrt(float(variances[unit]) + g.eps), zero)
                elif phase == 0:
                    finish(g, partial, statistics, lows, a, left // g.s, right // g.s, zero)
                fill_scales(g, weight, bias, means, rstds, lows, shifts, a, left, columns, tables, zero)
            wide = columns * g.fold
            high, factor, shift = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
            operands = (x, high, factor, shift, weight, bias)
            if g.transposed:
                to, at = (a * width + left) * rows, a * rows * width + left
                write_turned(g, y, to, at, columns, square, turned, streams, zero, *operands)
                continue
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                bottom = min((j + 1) * g.chunk, rows)
                row = j * g.chunk
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else one
                    at, n = (a * rows + row) * width + left, columns * fold
                    if g.r_step == 0:
                        height, there = (bottom - row) // fold, (x, tables, residual, bounds)
                        write_rows(y, at, height, width * fold, n, streams, zero, *there)
                        row += height * fold
                    else:
                        write_row(y, at, one, n, one, n, streams, zero, row * g.r_step, *operands)
                        row += 1
        for scratch in (work, all_tables, square, turned):
            free(scratch)
        if streams:
            fence()

    return columns_forward


@jit
def finish(g, partial, statistics, lows, a, k0, k1, zero):
    """The statistics k0 … k1 of one a, from those of its chunks."""
    width = g.k * g.s
    chunks = (g.r + g.chunk - 1) // g.chunk
    if chunks == 1 and g.s == 1:  # nothing is to be put together
        at, count = a * 2 * width, float(g.r)
        for k in range(k0, k1):
            mean, var = partial[at + k], partial[at + width + k] / count
            lows[a * g.k + k] = keep_statistics(g, a * g.k + k, mean, var, *statistics, zero)
        return
    means, m2 = numbers(k1 - k0, 0.0), numbers(k1 - k0, 0.0)
    fold_moments(partial, a * chunks * 2 * width + k0 * g.s, chunks, width, g.r, g.chunk, g.s, means, m2)
    for k in range(k0, k1):
        unit, var = a * g.k + k, m2[k - k0] / (g.r * g.s)
        lows[unit] = keep_statistics(g, unit, means[k - k0], var, *statistics, zero)
    free(means)
    free(m2)
