"""Kernels for short runs: vectors of K·S columns are summed down the R rows, then each statistic folds its S columns.

A tile is a range of columns, a chunk a range of rows. Where a whole tile fits a cache, one task does all of it
(``phase`` 0); where a statistic spans many chunks, three launches do sums, merge, apply (``phase`` 1, 2, 3). Both
orders add the same numbers in the same order, so the bits do not depend on the choice or on the number of threads.

Rows of few columns are read several at a time as one wider row (``fold``): they are contiguous.
"""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import RECORD, cast, jit, jit_sum, kernel, load, minus, pointer, store


@jit
def sum_rows(x, start, rows, stride, pivot, total):
    """total[c] = sum over the rows of x[row, c] - pivot[c], four rows at a time."""
    width = pivot.size
    total[:] = 0
    for row in range(0, rows - rows % 4, 4):
        at = start + row * stride
        one, two = x[at : at + width], x[at + stride : at + stride + width]
        three, four = x[at + 2 * stride : at + 2 * stride + width], x[at + 3 * stride : at + 3 * stride + width]
        for c in range(width):
            p = pivot[c]
            total[c] += ((load(one, c) - p) + (load(two, c) - p)) + ((load(three, c) - p) + (load(four, c) - p))
    for row in range(rows - rows % 4, rows):
        one = x[start + row * stride : start + row * stride + width]
        for c in range(width):
            total[c] += load(one, c) - pivot[c]


@jit
def square_rows(x, start, rows, stride, pivot, first, second):
    """Sums over the rows of x - pivot and of its square."""
    width = pivot.size
    first[:] = 0
    second[:] = 0
    for row in range(0, rows - rows % 4, 4):
        at = start + row * stride
        one, two = x[at : at + width], x[at + stride : at + stride + width]
        three, four = x[at + 2 * stride : at + 2 * stride + width], x[at + 3 * stride : at + 3 * stride + width]
        for c in range(width):
            p = pivot[c]
            d1, d2, d3, d4 = load(one, c) - p, load(two, c) - p, load(three, c) - p, load(four, c) - p
            first[c] += (d1 + d2) + (d3 + d4)
            second[c] += (d1 * d1 + d2 * d2) + (d3 * d3 + d4 * d4)
    for row in range(rows - rows % 4, rows):
        one = x[start + row * stride : start + row * stride + width]
        for c in range(width):
            d = load(one, c) - pivot[c]
            first[c] += d
            second[c] += d * d


@jit
def merge_columns(count, mean, m2, other_count, other_mean, other_m2):
    """mean and m2 of `count` rows become those of these and `other_count` more (Chan, Golub & LeVeque 1979)."""
    share = other_count / (count + other_count)
    for c in range(mean.size):
        delta = other_mean[c] - mean[c]
        mean[c] += delta * share
        m2[c] += other_m2[c] + delta * delta * (count * share)


@jit
def moments_of_block(x, start, rows, stride, mean, m2, work, count, centred, zero):
    """Merge `rows` rows into the columns' mean and m2, of `count` rows so far; work holds five rows."""
    width = work.shape[1]
    pivot, first, second = work[0], work[1], work[2]
    if centred:
        for c in range(width):
            pivot[c] = load(x, start + c)
        sum_rows(x, start, rows, stride, pivot, first)
        for c in range(width):
            pivot[c] += first[c] / cast(rows, zero)
    else:
        pivot[:] = 0
    square_rows(x, start, rows, stride, pivot, first, second)
    columns = mean.size
    block_mean, block_m2 = np.empty(columns), np.empty(columns)
    n = float(rows)
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
    """Mean and m2 of rows with every sum in float64: for squares that the compute type cannot hold."""
    columns = mean.size
    mean[:] = 0
    m2[:] = 0
    if centred:
        for row in range(rows):
            for c in range(columns):
                mean[c] += float(load(x, start + row * stride + c)) / rows
    for row in range(rows):
        for c in range(columns):
            deviation = float(load(x, start + row * stride + c)) - mean[c]
            m2[c] += deviation * deviation


@jit
def moments_of_rows(x, start, rows, stride, fold, mean, m2, work, centred, zero):
    """Mean and m2 of each column of a tile, over a chunk of rows."""
    mean[:] = 0
    m2[:] = 0
    folded = rows // fold
    if folded:
        moments_of_block(x, start, folded, stride * fold, mean, m2, work, 0.0, centred, zero)
    if rows > folded * fold:
        columns = mean.size
        rest = start + folded * fold * stride
        count = float(folded * fold)
        moments_of_block(x, rest, rows - folded * fold, stride, mean, m2, work[:, :columns], count, centred, zero)
    if not np.isfinite(m2.sum()):
        wide_moments_of_rows(x, start, rows, stride, mean, m2, centred)


@jit
def fold_moments(means, m2s, rows, chunk, length, mean, m2):
    """Statistics of runs of `length` columns, from those of each column in each chunk; mean[k], m2[k]."""
    columns = means.shape[1]
    total_mean, total_m2 = means[0].copy(), m2s[0].copy()
    count = float(min(chunk, rows))
    for j in range(1, means.shape[0]):
        n = float(min(chunk, rows - j * chunk))
        merge_columns(count, total_mean, total_m2, n, means[j], m2s[j])
        count += n
    for k in range(columns // length):
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
        rows, length, width = g.r, g.s, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        partial = carray(pointer(g.partial), (g.a, 2, chunks, width), np.float64)
        work = np.empty((3, g.tile * g.fold), compute)
        tables = np.empty((3, g.tile * g.fold), compute)
        # phase 0: a task is a tile of one a, all of its chunks; 1 and 3: one chunk of it; 2: the statistics of one k
        chunk_tasks = 1 if g.phase == 0 else chunks
        tasks = g.a * g.k if g.phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if g.phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                finish(partial, means, variances, rstds, lows, a, k, stop, rows, g.chunk, length, g.k, g.eps, zero)
                begin += stop - k
            return
        for task in range(begin, end):
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            first_chunk, last_chunk = (0, chunks) if g.phase == 0 else (chunk, chunk + 1)
            if g.phase <= 1 and not g.given:
                for j in range(first_chunk, last_chunk):
                    moments_of_rows(
                        x,
                        (a * rows + j * g.chunk) * width + left,
                        min(g.chunk, rows - j * g.chunk),
                        width,
                        g.fold,
                        partial[a, 0, j, left:right],
                        partial[a, 1, j, left:right],
                        work[:, : (right - left) * g.fold],
                        g.centred != 0,
                        zero,
                    )
            if g.phase == 1:
                continue
            if g.phase == 0 and not g.given:
                k0, k1 = left // length, right // length
                finish(partial, means, variances, rstds, lows, a, k0, k1, rows, g.chunk, length, g.k, g.eps, zero)
            columns = right - left
            for c in range(columns * g.fold):
                column = left + c % columns
                k, s = column // length, column % length
                unit = a * g.k + k
                place = a % g.a_period * g.a_step + k * g.k_step + s // g.s_run * g.s_step
                if g.given:
                    rstds[unit] = cast(1.0 / np.sqrt(float(variances[unit]) + g.eps), zero)
                low = zero if g.given else lows[unit]
                scale, shift = rstds[unit], zero
                if g.r_step == 0:
                    scale *= weight[place]
                    shift = bias[place]
                tables[0, c], tables[1, c], tables[2, c] = means[unit], scale, shift - low * scale
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                bottom = min((j + 1) * g.chunk, rows)
                row = j * g.chunk
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else 1
                    at, wide = (a * rows + row) * width + left, columns * fold
                    factor, offset = compute(1), zero
                    if g.r_step != 0:
                        factor, offset = weight[row * g.r_step], bias[row * g.r_step]
                    scale_row(
                        x[at : at + wide],
                        y[at : at + wide],
                        tables[0, :wide],
                        tables[1, :wide],
                        tables[2, :wide],
                        factor,
                        offset,
                    )
                    row += fold

    return columns_forward


@jit
def finish(partial, means, variances, rstds, lows, a, k0, k1, rows, chunk, length, inner, eps, zero):
    """The statistics k0 … k1 of one a, from the partial ones of its chunks."""
    left, right = k0 * length, k1 * length
    mean, m2 = np.empty(k1 - k0), np.empty(k1 - k0)
    fold_moments(partial[a, 0, :, left:right], partial[a, 1, :, left:right], rows, chunk, length, mean, m2)
    for k in range(k0, k1):
        unit = a * inner + k
        var = m2[k - k0] / (rows * length)
        means[unit] = cast(mean[k - k0], zero)
        variances[unit] = cast(var, zero)
        rstds[unit] = cast(1.0 / np.sqrt(var + eps), zero)
        lows[unit] = cast(mean[k - k0] - float(means[unit]), zero)


@jit
def product_rows(x, dy, start, rows, stride, high, weights, step, sums):
    """Sums over the rows of x - high, g and g (x - high), where g = dy · weight of the row."""
    width = high.size
    sums[:] = 0
    deviations, plain, crossed = sums[0], sums[1], sums[2]
    for row in range(0, rows - rows % 2, 2):
        at = start + row * stride
        x1, x2 = x[at : at + width], x[at + stride : at + stride + width]
        g1, g2 = dy[at : at + width], dy[at + stride : at + stride + width]
        w1, w2 = weights[row * step], weights[(row + 1) * step]
        for c in range(width):
            d1, d2 = load(x1, c) - high[c], load(x2, c) - high[c]
            p1, p2 = load(g1, c) * w1, load(g2, c) * w2
            deviations[c] += d1 + d2
            plain[c] += p1 + p2
            crossed[c] += p1 * d1 + p2 * d2
    for row in range(rows - rows % 2, rows):
        at = start + row * stride
        x1, g1, w1 = x[at : at + width], dy[at : at + width], weights[row * step]
        for c in range(width):
            d, p = load(x1, c) - high[c], load(g1, c) * w1
            deviations[c] += d
            plain[c] += p
            crossed[c] += p * d


@jit
def project_row(x, dy, dx, tables):
    """dx of rows whose columns have their own weight; see `fill_tables`."""
    high, rstd, scale, crossed, plain = tables[0], tables[1], tables[2], tables[3], tables[4]
    for c in range(x.size):
        d = (load(x, c) - high[c]) * rstd[c]
        store(dx, c, load(dy, c) * scale[c] - d * crossed[c] - plain[c])


@jit_sum
def project_row_of(x, dy, dx, tables, weight, zero):
    """dx of a row that has one weight; returns the row's share of dweight and dbias."""
    high, rstd, scale, crossed, plain, shift = tables[0], tables[1], tables[2], tables[3], tables[4], tables[5]
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
def coefficients_of(g, partial, weight, rstds, coefficients, dweights, a, k0, k1, zero):
    """What dx needs of each statistic (low, mean of g, mean of g x_hat), and dweight and dbias of its columns."""
    length = g.s
    n = float(g.r * length)
    dweight, dbias = dweights[0, a], dweights[1, a]
    for k in range(k0, k1):
        unit = a * g.k + k
        rstd = float(rstds[unit])
        low, plain, crossed = 0.0, 0.0, 0.0
        if not g.given and g.centred:
            low = partial[a, 0, :, k * length : (k + 1) * length].sum() / n
        for s in range(length):
            column_plain = partial[a, 1, :, k * length + s].sum()
            column_crossed = (partial[a, 2, :, k * length + s].sum() - low * column_plain) * rstd
            factor = 1.0
            if g.r_step == 0:
                place = a % g.a_period * g.a_step + k * g.k_step + s // g.s_run * g.s_step
                factor = float(weight[place])
                if s % g.s_run == 0 and (s == 0 or g.s_step != 0):
                    dweight[place], dbias[place] = zero, zero
                dweight[place] += cast(column_crossed, zero)
                dbias[place] += cast(column_plain, zero)
            plain += factor * column_plain
            crossed += factor * column_crossed
        coefficients[0, unit] = cast(low, zero)
        coefficients[1, unit] = cast(plain / n, zero) if g.centred and not g.given else zero
        coefficients[2, unit] = cast(crossed / n, zero) if not g.given else zero


@jit
def fill_tables(g, weight, means, rstds, coefficients, a, left, columns, tables, zero):
    """What each column contributes: high, rstd, weight · rstd, mean of g x_hat · rstd, the constant, low's share."""
    for c in range(tables.shape[1]):
        column = left + c % columns
        k, s = column // g.s, column % g.s
        unit = a * g.k + k
        rstd = rstds[unit]
        scale = rstd
        if g.r_step == 0:
            scale *= weight[a % g.a_period * g.a_step + k * g.k_step + s // g.s_run * g.s_step]
        crossed = coefficients[2, unit] * rstd
        shift = -coefficients[0, unit] * rstd
        tables[0, c], tables[1, c], tables[2, c], tables[3, c] = means[unit], rstd, scale, crossed
        tables[4, c], tables[5, c] = coefficients[1, unit] * rstd + shift * crossed, shift


def backward(storage, compute):
    """dx, and dweight and dbias by part (to be summed over the parts)."""

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
        coefficients = carray(pointer(g.coefficients), (3, g.a * g.k), compute)
        zero = compute(0)
        rows, length, width = g.r, g.s, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        by_row = g.r_step != 0
        partial = carray(pointer(g.partial), (g.a, 3, chunks, width), np.float64)
        dweights = carray(pointer(g.dweight), (2, g.a * tiles if by_row else g.a, g.affine_size), compute)
        highs = np.empty(g.tile * g.fold, compute)
        sums = np.empty((3, g.tile * g.fold), compute)
        tables = np.empty((6, g.tile * g.fold), compute)
        ones = np.ones(1, compute)
        # the phases are those of the forward kernel
        chunk_tasks = 1 if g.phase == 0 else chunks
        tasks = g.a * g.k if g.phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if g.phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                coefficients_of(g, partial, weight, rstds, coefficients, dweights, a, k, stop, zero)
                begin += stop - k
            return
        for task in range(begin, end):
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            columns = right - left
            first_chunk, last_chunk = (0, chunks) if g.phase == 0 else (chunk, chunk + 1)
            if g.phase <= 1:
                for c in range(columns * g.fold):
                    highs[c] = means[a * g.k + (left + c % columns) // length]
                for j in range(first_chunk, last_chunk):
                    partial[a, :, j, left:right] = 0.0
                    row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
                    while row < bottom:
                        fold = g.fold if row + g.fold <= bottom else 1
                        height = (bottom - row) // fold
                        wide = columns * fold
                        product_rows(
                            x,
                            dy,
                            (a * rows + row) * width + left,
                            height,
                            width * fold,
                            highs[:wide],
                            weight[row:] if by_row else ones,
                            g.r_step,
                            sums[:, :wide],
                        )
                        for c in range(wide):
                            for i in range(3):
                                partial[a, i, j, left + c % columns] += float(sums[i, c])
                        row += height * fold
            if g.phase == 1:
                continue
            if g.phase == 0:
                k0, k1 = left // length, right // length
                coefficients_of(g, partial, weight, rstds, coefficients, dweights, a, k0, k1, zero)
            if g.dx == 0:
                continue
            fill_tables(g, weight, means, rstds, coefficients, a, left, columns, tables[:, : columns * g.fold], zero)
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else 1
                    at, wide = (a * rows + row) * width + left, columns * fold
                    if by_row:
                        dweights[0, a * tiles + tile, row], dweights[1, a * tiles + tile, row] = project_row_of(
                            x[at : at + wide], dy[at : at + wide], dx[at : at + wide], tables, weight[row], zero
                        )
                    else:
                        project_row(x[at : at + wide], dy[at : at + wide], dx[at : at + wide], tables)
                    row += fold

    return columns_backward
