"""Kernels for short runs: vectors of K·S columns are summed down the R rows, then each statistic folds its S columns.

A tile is a range of columns, a chunk a range of rows. Where a whole tile fits a cache, one task does all of it
(``phase`` 0); where a statistic spans many chunks, three launches do sums, merge, apply (``phase`` 1, 2, 3). Both
orders add the same numbers in the same order, so the bits do not depend on the choice or on the number of threads.

Rows of few columns are read several at a time as one wider row (``fold``): they are contiguous.
"""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import (
    RECORD,
    cast,
    fence,
    flush,
    jit,
    jit_sum,
    kernel,
    load,
    minus,
    pointer,
    store,
    target,
)
from normkit.backends.numba.runs import FAR

BLOCK_ROWS = 128  # rows whose sum may stay in the compute type
SAMPLE_ROWS = 8  # whose mean stands for that of a block, unless it proves to be far from it


@jit
def row_of(table, row, width):
    """A row of a table that lies flat in memory (a slice of a 2-D array would not be known to be contiguous)."""
    return table[row * width : (row + 1) * width]


@jit
def sum_rows(x, start, rows, stride, pivot, total):
    """total[c] = sum over the rows of x[row, c] - pivot[c].

    One row at a time: several at once would read several streams, and the prefetchers of the memory follow one best.
    """
    total[:] = 0
    for at in range(start, start + rows * stride, stride):
        row = x[at : at + pivot.size]
        for c in range(pivot.size):
            total[c] += load(row, c) - pivot[c]


@jit
def square_rows(x, start, rows, stride, pivot, first, second):
    """Sums over the rows of x - pivot and of its square."""
    first[:] = 0
    second[:] = 0
    for at in range(start, start + rows * stride, stride):
        row = x[at : at + pivot.size]
        for c in range(pivot.size):
            d = load(row, c) - pivot[c]
            first[c] += d
            second[c] += d * d


@jit
def merge_columns(count, mean, m2, other_count, other_mean, other_m2):
    """mean and m2 of `count` rows become those of these and `other_count` more (Chan, Golub & LeVeque 1979)."""
    if count == 0.0:  # not by the formula: the square of a huge mean may overflow
        for c in range(mean.size):
            mean[c], m2[c] = other_mean[c], other_m2[c]
        return
    share = other_count / (count + other_count)
    for c in range(mean.size):
        delta = other_mean[c] - mean[c]
        mean[c] += delta * share
        m2[c] += other_m2[c] + delta * delta * (count * share)


@jit
def moments_of_block(x, start, rows, stride, width, mean, m2, work, count, centred, zero):
    """Merge `rows` rows of `width` numbers into the columns' mean and m2, of `count` rows so far."""
    pivot, first, second = row_of(work, 0, width), row_of(work, 1, width), row_of(work, 2, width)
    n = float(rows)
    pivot[:] = 0
    if centred:
        sample = min(rows, SAMPLE_ROWS)
        for c in range(width):
            pivot[c] = load(x, start + c)
        sum_rows(x, start, sample, stride, pivot, first)
        for c in range(width):
            pivot[c] += first[c] / cast(sample, zero)
    square_rows(x, start, rows, stride, pivot, first, second)
    if centred:
        far = False
        for c in range(width):
            far |= float(first[c]) * float(first[c]) > FAR * n * float(second[c])
        if far:
            for c in range(width):
                pivot[c] += first[c] / cast(rows, zero)
            square_rows(x, start, rows, stride, pivot, first, second)
    columns = mean.size
    block_mean, block_m2 = np.empty(columns), np.empty(columns)
    for left in range(0, width, columns):
        for c in range(columns):
            f = float(first[left + c])
            rest = f / n
            block_mean[c] = float(pivot[left + c]) + rest if centred else 0.0
            block_m2[c] = max(float(second[left + c]) - rest * f, 0.0) if centred else float(second[left + c])
        merge_columns(count, mean, m2, n, block_mean, block_m2)
        count += n


@jit
def wide_moments_of_rows(x, start, rows, stride, mean, m2, centred):
    """Mean and m2, with every sum in float64, of the columns whose squares the compute type cannot hold."""
    columns = mean.size
    wide_mean, wide_m2 = np.zeros(columns), np.zeros(columns)
    if centred:
        for row in range(rows):
            for c in range(columns):
                wide_mean[c] += float(load(x, start + row * stride + c)) / rows
    for row in range(rows):
        for c in range(columns):
            deviation = float(load(x, start + row * stride + c)) - wide_mean[c]
            wide_m2[c] += deviation * deviation
    for c in range(columns):
        if not np.isfinite(m2[c]):
            mean[c], m2[c] = wide_mean[c], wide_m2[c]


@jit
def moments_of_rows(x, start, rows, stride, fold, mean, m2, work, centred, zero):
    """Mean and m2 of each column of a tile, over a chunk of rows."""
    mean[:] = 0
    m2[:] = 0
    folded = rows // fold
    for top in range(0, folded, BLOCK_ROWS):
        block, at, count = min(BLOCK_ROWS, folded - top), start + top * fold * stride, float(top * fold)
        moments_of_block(x, at, block, stride * fold, mean.size * fold, mean, m2, work, count, centred, zero)
    if rows > folded * fold:
        done = folded * fold
        rest = start + done * stride
        moments_of_block(x, rest, rows - done, stride, mean.size, mean, m2, work, float(done), centred, zero)
    if not np.isfinite(m2.sum()):
        wide_moments_of_rows(x, start, rows, stride, mean, m2, centred)


@jit
def fold_moments(partial, start, chunks, width, rows, chunk, length, mean, m2):
    """Statistics of runs of `length` columns from those of each column in each chunk.

    partial holds, for each chunk, the means and then the m2s of `width` columns; the first column is at `start`.
    """
    columns = mean.size * length
    total_mean, total_m2 = np.zeros(columns), np.zeros(columns)
    count = 0.0
    for j in range(chunks):
        n = float(min(chunk, rows - j * chunk))
        at = start + 2 * j * width
        merge_columns(
            count, total_mean, total_m2, n, partial[at : at + columns], partial[at + width : at + width + columns]
        )
        count += n
    for k in range(mean.size):
        left = k * length
        center = 0.0
        for c in range(left, left + length):
            center += total_mean[c] - total_mean[left]
        center = total_mean[left] + center / length
        spread = 0.0
        for c in range(left, left + length):
            delta = total_mean[c] - center
            spread += total_m2[c] + float(rows) * delta * delta
        mean[k] = center
        m2[k] = spread


@jit
def scale_row(x, y, high, scale, shift, weight, bias):
    for c in range(high.size):
        store(y, c, ((load(x, c) - high[c]) * scale[c] + shift[c]) * weight + bias)


@jit
def fill_scales(g, weight, bias, means, rstds, lows, a, left, columns, tables, zero):
    """What each column of a tile needs: mean, factor and offset; repeated for each row that is folded in."""
    wide = columns * g.fold
    high, scale, shift = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
    c = 0
    for k in range(left // g.s, (left + columns) // g.s):
        unit = a * g.k + k
        place = a % g.a_period * g.a_step + k * g.k_step
        low = zero if g.given else lows[unit]
        for s in range(g.s):
            high[c], scale[c], shift[c] = means[unit], rstds[unit], zero
            if g.r_step == 0:
                at = place + s // g.s_run * g.s_step
                scale[c] *= weight[at]
                shift[c] = bias[at]
            shift[c] -= low * scale[c]
            c += 1
    for table in (high, scale, shift):
        repeat(table, columns)


@jit
def repeat(table, columns):
    """Fill a table with copies of its first columns."""
    for left in range(columns, table.size, columns):
        table[left : left + columns] = table[:columns]


def forward(storage, compute):
    """Statistics (unless given) and the normalized result."""

    @kernel
    def columns_forward(data, part, parts):
        g = carray(data, 1, RECORD)[0]
        size = g.a * g.r * g.k * g.s
        x = carray(pointer(g.x), size, storage)
        y = carray(pointer(g.y), size, storage)
        weight = carray(pointer(g.weight), g.affine_size, compute)
        bias = carray(pointer(g.bias), g.affine_size, compute)
        means = carray(pointer(g.mean), g.a * g.k, compute)
        variances = carray(pointer(g.var), g.a * g.k, compute)
        rstds = carray(pointer(g.rstd), g.a * g.k, compute)
        lows = carray(pointer(g.coefficients), g.a * g.k, compute)
        zero = compute(0)
        rows, width = g.r, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        partial = carray(pointer(g.partial), g.a * chunks * 2 * width, np.float64)
        # phase 0: a task is a tile of one a, all of its chunks; 1 and 3: one chunk of it; 2: the statistics of one k
        chunk_tasks = 1 if g.phase == 0 else chunks
        tasks = g.a * g.k if g.phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if g.phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                finish(g, partial, means, variances, rstds, lows, a, k, stop, zero)
                begin += stop - k
            return
        work = np.empty(3 * g.tile * g.fold, compute)
        tables = np.empty(3 * g.tile * g.fold, compute)
        buffer = np.empty(g.tile * g.fold if g.stream else 0, storage)
        tabulated = -1
        for task in range(begin, end):
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            columns = right - left
            first_chunk, last_chunk = (0, chunks) if g.phase == 0 else (chunk, chunk + 1)
            if g.phase <= 1 and not g.given:
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
                        g.centred != 0,
                        zero,
                    )
            if g.phase == 1:
                continue
            if tabulated != a * tiles + tile:
                tabulated = a * tiles + tile
                if g.given:
                    for unit in range(a * g.k + left // g.s, a * g.k + right // g.s):
                        rstds[unit] = cast(1.0 / np.sqrt(float(variances[unit]) + g.eps), zero)
                elif g.phase == 0:
                    finish(g, partial, means, variances, rstds, lows, a, left // g.s, right // g.s, zero)
                fill_scales(g, weight, bias, means, rstds, lows, a, left, columns, tables, zero)
            wide = columns * g.fold
            high, scale, shift = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                bottom = min((j + 1) * g.chunk, rows)
                row = j * g.chunk
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else 1
                    at, n = (a * rows + row) * width + left, columns * fold
                    factor, offset = compute(1), zero
                    if g.r_step != 0:
                        factor, offset = weight[row * g.r_step], bias[row * g.r_step]
                    out = target(y, at, n, buffer)
                    scale_row(x[at : at + n], out, high[:n], scale[:n], shift[:n], factor, offset)
                    flush(y, at, n, buffer)
                    row += fold
        if g.stream:
            fence()

    return columns_forward


@jit
def finish(g, partial, means, variances, rstds, lows, a, k0, k1, zero):
    """The statistics k0 … k1 of one a, from those of its chunks."""
    width = g.k * g.s
    chunks = (g.r + g.chunk - 1) // g.chunk
    mean, m2 = np.empty(k1 - k0), np.empty(k1 - k0)
    fold_moments(partial, a * chunks * 2 * width + k0 * g.s, chunks, width, g.r, g.chunk, g.s, mean, m2)
    for k in range(k0, k1):
        unit = a * g.k + k
        var = m2[k - k0] / (g.r * g.s)
        means[unit] = cast(mean[k - k0], zero)
        variances[unit] = cast(var, zero)
        rstds[unit] = cast(1.0 / np.sqrt(var + g.eps), zero)
        lows[unit] = cast(mean[k - k0] - float(means[unit]), zero)


@jit
def product_rows(x, dy, start, rows, stride, high, weights, step, sums):
    """Sums over the rows of x - high, g and g (x - high), where g = dy · weight of the row."""
    width = high.size
    sums[:] = 0
    deviations, plain, crossed = row_of(sums, 0, width), row_of(sums, 1, width), row_of(sums, 2, width)
    for row in range(rows):
        at = start + row * stride
        x_row, dy_row, weight = x[at : at + width], dy[at : at + width], weights[row * step]
        for c in range(width):
            d, p = load(x_row, c) - high[c], load(dy_row, c) * weight
            deviations[c] += d
            plain[c] += p
            crossed[c] += p * d


@jit
def add_folded(sums, wide, columns, totals):
    """Add the sums of folded rows to those of the columns."""
    for left in range(0, wide, columns):
        for c in range(columns):
            totals[c] += float(sums[left + c])


@jit
def project_row(x, dy, dx, high, rstd, scale, crossed, plain):
    """dx of rows whose columns have their own weight; see `fill_coefficients`."""
    for c in range(x.size):
        d = (load(x, c) - high[c]) * rstd[c]
        store(dx, c, load(dy, c) * scale[c] - d * crossed[c] - plain[c])


@jit_sum
def project_row_of(x, dy, dx, high, rstd, scale, crossed, plain, shift, weight, zero):
    """dx of a row that has one weight; returns the row's share of dweight and dbias."""
    dweight = zero
    dbias = zero
    for c in range(x.size):
        d = minus(load(x, c), high[c]) * rstd[c]
        gradient = load(dy, c)
        store(dx, c, gradient * (scale[c] * weight) - d * crossed[c] - plain[c])
        dweight += gradient * (d + shift[c])
        dbias += gradient
    return dweight, dbias


@jit
def coefficients_of(g, partial, weight, rstds, coefficients, dweights, parts, a, k0, k1, zero):
    """What dx needs of each statistic (low, mean of g, mean of g x_hat), and dweight and dbias of its columns."""
    length, width, units = g.s, g.k * g.s, g.a * g.k
    chunks = (g.r + g.chunk - 1) // g.chunk
    columns = (k1 - k0) * length
    n = float(g.r * length)
    totals = np.zeros(3 * columns)
    for j in range(chunks):
        for i in range(3):
            at = ((a * chunks + j) * 3 + i) * width + k0 * length
            add_folded(partial[at : at + columns], columns, columns, row_of(totals, i, columns))
    deviations, plains, crosseds = row_of(totals, 0, columns), row_of(totals, 1, columns), row_of(totals, 2, columns)
    dweight, dbias = row_of(dweights, a, g.affine_size), row_of(dweights, parts + a, g.affine_size)
    for k in range(k0, k1):
        unit = a * g.k + k
        rstd = float(rstds[unit])
        left = (k - k0) * length
        place = a % g.a_period * g.a_step + k * g.k_step
        low, plain, crossed = 0.0, 0.0, 0.0
        if not g.given and g.centred:
            low = deviations[left : left + length].sum() / n
        for s in range(length):
            column_plain = plains[left + s]
            column_crossed = (crosseds[left + s] - low * column_plain) * rstd
            factor = 1.0
            if g.r_step == 0:
                at = place + s // g.s_run * g.s_step
                factor = float(weight[at])
                dweight[at] += cast(column_crossed, zero)
                dbias[at] += cast(column_plain, zero)
            plain += factor * column_plain
            crossed += factor * column_crossed
        coefficients[unit] = cast(low, zero)
        coefficients[units + unit] = cast(plain / n, zero) if g.centred and not g.given else zero
        coefficients[2 * units + unit] = cast(crossed / n, zero) if not g.given else zero


@jit
def fill_coefficients(g, weight, means, rstds, coefficients, a, left, columns, tables, zero):
    """What each column gives to dx: high, rstd, weight · rstd, mean of g x_hat · rstd, a constant, the share of low."""
    wide, units = columns * g.fold, g.a * g.k
    high, rstd, scale = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
    crossed, plain, shift = row_of(tables, 3, wide), row_of(tables, 4, wide), row_of(tables, 5, wide)
    c = 0
    for k in range(left // g.s, (left + columns) // g.s):
        unit = a * g.k + k
        place = a % g.a_period * g.a_step + k * g.k_step
        for s in range(g.s):
            high[c], rstd[c], scale[c] = means[unit], rstds[unit], rstds[unit]
            if g.r_step == 0:
                scale[c] *= weight[place + s // g.s_run * g.s_step]
            crossed[c] = coefficients[2 * units + unit] * rstd[c]
            shift[c] = -coefficients[unit] * rstd[c]
            plain[c] = coefficients[units + unit] * rstd[c] + shift[c] * crossed[c]
            c += 1
    for table in (high, rstd, scale, crossed, plain, shift):
        repeat(table, columns)


def backward(storage, compute):
    """dx, and dweight and dbias by part (to be summed over the parts; the arrays come filled with zeros)."""

    @kernel
    def columns_backward(data, part, parts):
        g = carray(data, 1, RECORD)[0]
        size = g.a * g.r * g.k * g.s
        x = carray(pointer(g.x), size, storage)
        dy = carray(pointer(g.dy), size, storage)
        dx = carray(pointer(g.dx), size, storage)
        weight = carray(pointer(g.weight), g.affine_size, compute)
        means = carray(pointer(g.mean), g.a * g.k, compute)
        rstds = carray(pointer(g.rstd), g.a * g.k, compute)
        coefficients = carray(pointer(g.coefficients), 3 * g.a * g.k, compute)
        zero = compute(0)
        rows, width = g.r, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        by_row = g.r_step != 0
        partial = carray(pointer(g.partial), g.a * chunks * 3 * width, np.float64)
        affine_parts = g.a * tiles if by_row else g.a
        dweights = carray(pointer(g.dweight), 2 * affine_parts * g.affine_size, compute)
        # the phases are those of the forward kernel
        chunk_tasks = 1 if g.phase == 0 else chunks
        tasks = g.a * g.k if g.phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if g.phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                coefficients_of(g, partial, weight, rstds, coefficients, dweights, affine_parts, a, k, stop, zero)
                begin += stop - k
            return
        highs = np.empty(g.tile * g.fold, compute)
        sums = np.empty(3 * g.tile * g.fold, compute)
        tables = np.empty(6 * g.tile * g.fold, compute)
        ones = np.ones(1, compute)
        buffer = np.empty(g.tile * g.fold if g.stream else 0, storage)
        tabulated = -1
        for task in range(begin, end):
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            columns = right - left
            wide = columns * g.fold
            first_chunk, last_chunk = (0, chunks) if g.phase == 0 else (chunk, chunk + 1)
            fresh = tabulated != a * tiles + tile
            tabulated = a * tiles + tile
            if g.phase <= 1:
                if fresh:
                    for c in range(columns):
                        highs[c] = means[a * g.k + (left + c) // g.s]
                    repeat(highs[:wide], columns)
                for j in range(first_chunk, last_chunk):
                    at = (a * chunks + j) * 3 * width + left
                    for i in range(3):
                        partial[at + i * width : at + i * width + columns] = 0.0
                    row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
                    while row < bottom:
                        fold = g.fold if row + g.fold <= bottom else 1
                        height = min((bottom - row) // fold, BLOCK_ROWS)
                        n = columns * fold
                        product_rows(
                            x,
                            dy,
                            (a * rows + row) * width + left,
                            height,
                            width * fold,
                            highs[:n],
                            weight[row:] if by_row else ones,
                            g.r_step,
                            sums[: 3 * n],
                        )
                        for i in range(3):
                            totals = partial[at + i * width : at + i * width + columns]
                            add_folded(row_of(sums, i, n), n, columns, totals)
                        row += height * fold
            if g.phase == 1:
                continue
            if fresh:
                if g.phase == 0:
                    k0, k1 = left // g.s, right // g.s
                    coefficients_of(g, partial, weight, rstds, coefficients, dweights, affine_parts, a, k0, k1, zero)
                fill_coefficients(g, weight, means, rstds, coefficients, a, left, columns, tables, zero)
            if g.dx == 0:
                continue
            high, rstd, scale = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
            crossed, plain, shift = row_of(tables, 3, wide), row_of(tables, 4, wide), row_of(tables, 5, wide)
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else 1
                    at, n = (a * rows + row) * width + left, columns * fold
                    out = target(dx, at, n, buffer)
                    if by_row:
                        place = tabulated * g.affine_size + row
                        dweights[place], dweights[affine_parts * g.affine_size + place] = project_row_of(
                            x[at : at + n],
                            dy[at : at + n],
                            out,
                            high[:n],
                            rstd[:n],
                            scale[:n],
                            crossed[:n],
                            plain[:n],
                            shift[:n],
                            weight[row],
                            zero,
                        )
                    else:
                        project_row(
                            x[at : at + n],
                            dy[at : at + n],
                            out,
                            high[:n],
                            rstd[:n],
                            scale[:n],
                            crossed[:n],
                            plain[:n],
                        )
                    flush(dx, at, n, buffer)
                    row += fold
        if g.stream:
            fence()

    return columns_backward
