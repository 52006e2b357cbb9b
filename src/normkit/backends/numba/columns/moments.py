"""Mean and variance of columns, over chunks of rows. The scheme is that of the runs: see `runs`."""

import numpy as np

from normkit.backends.numba.compile import cast, jit
from normkit.backends.numba.memory import load_masked, prefetch, store_masked
from normkit.backends.numba.runs.moments import element
from normkit.backends.numba.scratch import alloc, fill, free, row_of
from normkit.backends.numba.simd import fma, lanes
from normkit.backends.numba.tuning import TUNING

BLOCK_ROWS = TUNING.block_rows
GROUP_ROWS = TUNING.group_rows
SAMPLE_ROWS = TUNING.sample_rows
PREFETCH_ELEMENTS = TUNING.prefetch_row_elements
FAR_PIVOT_SHARE = TUNING.far_pivot_share


@jit
def repeat(table, columns):
    """Fill a table with copies of its first columns."""
    for c in range(columns, table.size):
        table[c] = table[c - columns]


@jit
def add_folded(sums, totals):
    """Add the sums of folded rows to those of the columns."""
    columns = totals.size
    for left in range(0, sums.size, columns):
        for c in range(columns):
            totals[c] += float(sums[left + c])


@jit
def sum_rows(x, start, rows, stride, pivot, sums, squares, zero):
    """Sum d = x - pivot and d² over the rows."""
    step, width = lanes(zero), pivot.size
    fill(sums, zero)
    fill(squares, zero)
    for top in range(0, rows, GROUP_ROWS):
        begin, height = start + top * stride, min(GROUP_ROWS, rows - top)
        for c in range(0, width, step):
            at, n = begin + c, width - c
            about = load_masked(pivot, c, n, zero)
            d_sum, d_squares = load_masked(sums, c, n, zero), load_masked(squares, c, n, zero)
            for _ in range(height):
                prefetch(x, at + PREFETCH_ELEMENTS)
                d = load_masked(x, at, n, zero) - about
                d_sum += d
                d_squares = fma(d, d, d_squares)
                at += stride
            store_masked(sums, c, d_sum, n, zero)
            store_masked(squares, c, d_squares, n, zero)


@jit
def merge_columns(count, mean, m2, other_count, other_mean, other_m2):
    """Merge mean and m2 of `other_count` more rows into those of `count` rows (Chan, Golub & LeVeque 1979)."""
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
def merge_block(x, start, rows, stride, fold, mean, m2, work, count, subtract_mean, zero):
    """Merge `rows` rows, each of `fold` adjacent rows, into mean and m2 of `count` rows so far."""
    columns = mean.size
    wide, n = columns * fold, float(rows * fold)
    pivot, first, second = row_of(work, 0, wide), row_of(work, 1, wide), row_of(work, 2, wide)
    totals, squares = alloc(columns, 0.0), alloc(columns, 0.0)
    fill(pivot, zero)
    if subtract_mean:
        sample = min(rows, SAMPLE_ROWS)
        for c in range(0, columns, lanes(zero)):
            store_masked(pivot, c, load_masked(x, start + c, columns - c, zero), columns - c, zero)
        sum_rows(x, start, sample, stride, pivot[:columns], first, second, zero)
        for c in range(columns):
            pivot[c] += first[c] / cast(sample, zero)
        repeat(pivot, columns)
    for attempt in range(2):
        sum_rows(x, start, rows, stride, pivot, first, second, zero)
        fill(totals, 0.0)
        fill(squares, 0.0)
        add_folded(first, totals)
        add_folded(second, squares)
        far = False
        for c in range(columns):
            far |= totals[c] * totals[c] > FAR_PIVOT_SHARE * n * squares[c]
        if attempt == 1 or not (subtract_mean and far):
            break
        for c in range(columns):
            pivot[c] += cast(totals[c] / n, zero)
        repeat(pivot, columns)
    if subtract_mean:
        for c in range(columns):
            rest = totals[c] / n
            squares[c] = max(squares[c] - rest * totals[c], 0.0)
            totals[c] = float(pivot[c]) + rest
    else:
        fill(totals, 0.0)
    merge_columns(count, mean, m2, n, totals, squares)
    free(totals)
    free(squares)


@jit
def wide_moments(x, start, rows, stride, mean, m2, subtract_mean):
    """Compute mean and m2, with every sum in float64, of the columns whose squares the compute dtype cannot hold."""
    columns = mean.size
    wide_mean, wide_m2 = alloc(columns, 0.0), alloc(columns, 0.0)
    fill(wide_mean, 0.0)
    fill(wide_m2, 0.0)
    if subtract_mean:
        for row in range(rows):
            for c in range(columns):
                wide_mean[c] += float(element(x, start + row * stride + c)) / rows
    for row in range(rows):
        for c in range(columns):
            deviation = float(element(x, start + row * stride + c)) - wide_mean[c]
            wide_m2[c] += deviation * deviation
    for c in range(columns):
        if not np.isfinite(m2[c]):
            mean[c], m2[c] = wide_mean[c], wide_m2[c]
    free(wide_mean)
    free(wide_m2)


@jit
def moments(x, start, rows, stride, fold, mean, m2, work, subtract_mean, zero):
    """Compute mean and m2 of each column of a tile, over a chunk of rows."""
    fill(mean, 0.0)
    fill(m2, 0.0)
    folded = rows // fold
    for top in range(0, folded, BLOCK_ROWS):
        block, at, count = min(BLOCK_ROWS, folded - top), start + top * fold * stride, float(top * fold)
        merge_block(x, at, block, stride * fold, fold, mean, m2, work, count, subtract_mean, zero)
    done = folded * fold
    if rows > done:
        rest, one = start + done * stride, np.int64(1)
        merge_block(x, rest, rows - done, stride, one, mean, m2, work, float(done), subtract_mean, zero)
    spread = 0.0
    for c in range(m2.size):
        spread += m2[c]
    if not np.isfinite(spread):
        wide_moments(x, start, rows, stride, mean, m2, subtract_mean)


@jit
def merge_chunks(chunk_sums, start, chunks, width, rows, chunk, length, mean, m2):
    """Merge the moments of each column in each chunk to those of runs of `length` columns.

    chunk_sums holds, for each chunk, the means and then the m2s of `width` columns; the first column is at `start`.
    """
    columns = mean.size * length
    total_mean, total_m2 = alloc(columns, 0.0), alloc(columns, 0.0)
    fill(total_mean, 0.0)
    fill(total_m2, 0.0)
    count = 0.0
    for j in range(chunks):
        n = float(min(chunk, rows - j * chunk))
        at = start + 2 * j * width
        means, m2s = chunk_sums[at : at + columns], chunk_sums[at + width : at + width + columns]
        merge_columns(count, total_mean, total_m2, n, means, m2s)
        count += n
    for k in range(mean.size):
        left = k * length
        if length == 1:
            mean[k], m2[k] = total_mean[k], total_m2[k]
            continue
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
    free(total_mean)
    free(total_m2)
