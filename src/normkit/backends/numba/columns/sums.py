"""The sums down rows that the backward pass needs: of d = x - mean_hi, of g = dy · weight, and of g · d."""

from numba import types
from numba.extending import overload

from normkit.backends.numba.columns.moments import BLOCK_ROWS, GROUP_ROWS, PREFETCH_ELEMENTS, add_folded
from normkit.backends.numba.compile import INLINE, jit
from normkit.backends.numba.epilogue import column_mask_params, relu_backward
from normkit.backends.numba.memory import load_masked, prefetch, store_masked
from normkit.backends.numba.scratch import fill, row_of
from normkit.backends.numba.simd import fma, lanes, splat


def weighted(dy, weights, row):
    """Return dy times the weight of its row; dy if rows have none (`weights` is None)."""
    raise NotImplementedError("compiled code only")


@overload(weighted, jit_options=INLINE)
def _weighted(dy, weights, row):
    if weights is types.none:
        return lambda dy, weights, row: dy
    return lambda dy, weights, row: dy * splat(weights[row])


@jit
def sum_rows(tensors, start, rows, stride, means, weights, sums, zero, mask_table, bounds):
    """Sum d, g and g · d over the rows, where no bound was active."""
    x, dy = tensors
    step, width = lanes(zero), means.size
    fill(sums, zero)
    d_sums, g_sums, gd_sums = row_of(sums, 0, width), row_of(sums, 1, width), row_of(sums, 2, width)
    group = GROUP_ROWS // 2  # of two tensors
    for top in range(0, rows, group):
        begin, height = start + top * stride, min(group, rows - top)
        for c in range(0, width, step):
            at, n = begin + c, width - c
            mean_hi, params = load_masked(means, c, n, zero), column_mask_params(c, n, zero, mask_table, bounds)
            d_sum, g_sum = load_masked(d_sums, c, n, zero), load_masked(g_sums, c, n, zero)
            gd_sum = load_masked(gd_sums, c, n, zero)
            for row in range(top, top + height):
                prefetch(x, at + PREFETCH_ELEMENTS)
                prefetch(dy, at + PREFETCH_ELEMENTS)
                d = load_masked(x, at, n, zero) - mean_hi
                g = weighted(relu_backward(load_masked(dy, at, n, zero), d, params), weights, row)
                d_sum += d
                g_sum += g
                gd_sum = fma(g, d, gd_sum)
                at += stride
            store_masked(d_sums, c, d_sum, n, zero)
            store_masked(g_sums, c, g_sum, n, zero)
            store_masked(gd_sums, c, gd_sum, n, zero)


@jit
def sum_chunk(g, tensors, a, j, left, columns, means, weight, sums, chunk_sums, zero, masking):
    """Sum d, g and g · d of a tile of columns over a chunk of rows."""
    mask_table, bounds = masking
    rows, width = g.r, g.k * g.s
    chunks = (rows + g.chunk - 1) // g.chunk
    at = (a * chunks + j) * 3 * width + left
    for i in range(3):
        chunk_sums[at + i * width : at + i * width + columns] = 0.0
    row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
    while row < bottom:
        fold = g.fold if row + g.fold <= bottom else 1
        height = min((bottom - row) // fold, BLOCK_ROWS)
        n = columns * fold
        start = (a * rows + row) * width + left
        if g.r_step != 0:
            sum_rows(
                tensors, start, height, width * fold, means[:n], weight[row:], sums[: 3 * n], zero, mask_table, bounds
            )
        else:
            sum_rows(tensors, start, height, width * fold, means[:n], None, sums[: 3 * n], zero, mask_table, bounds)
        for i in range(3):
            totals = chunk_sums[at + i * width : at + i * width + columns]
            add_folded(row_of(sums, i, n), totals)
        row += height * fold
