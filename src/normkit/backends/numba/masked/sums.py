"""The sums over rows that masked kernels need. Each is of one row, in float64; see `row_sums` for the scheme."""

import numpy as np

from normkit.backends.numba.compile import cast, inline, jit
from normkit.backends.numba.memory import load_masked, prefetch
from normkit.backends.numba.simd import fma, lanes, mask_between, reduce_add, splat
from normkit.backends.numba.tuning import TUNING

BLOCK_ELEMENTS = TUNING.block_elements
PREFETCH_ELEMENTS = TUNING.prefetch_elements


@inline
def where_weighted(vector, weights, zero):
    """Keep the lanes whose weight is not 0."""
    return mask_between(vector, weights, splat(zero), splat(cast(np.inf, zero)))


@jit
def row_sums(x, weights, at, weights_at, size, pivot, zero):
    """Sum w · d and w · d², d = x - pivot, of one row: blocks in the compute dtype, and these in float64."""
    step, about = lanes(zero), splat(pivot)
    total, squares = 0.0, 0.0
    for left in range(0, size, BLOCK_ELEMENTS):
        right = min(size, left + BLOCK_ELEMENTS)
        sums, sums_2 = splat(zero), splat(zero)
        for i in range(left, right, step):
            prefetch(x, at + i + PREFETCH_ELEMENTS)
            w = load_masked(weights, weights_at + i, right - i, zero)
            d = where_weighted(load_masked(x, at + i, right - i, zero) - about, w, zero)
            weighted = w * d
            sums += weighted
            sums_2 = fma(weighted, d, sums_2)
        total += float(reduce_add(sums))
        squares += float(reduce_add(sums_2))
    return total, squares


@jit
def wide_row_sums(x, weights, at, weights_at, size, pivot, zero):
    """Do as `row_sums` in float64 alone: for squares that the compute dtype cannot hold."""
    total, squares = 0.0, 0.0
    for i in range(size):
        w = float(reduce_add(load_masked(weights, weights_at + i, 1, zero)))
        if w > 0.0:
            d = float(reduce_add(load_masked(x, at + i, 1, zero))) - pivot
            total += w * d
            squares += w * d * d
    return total, squares


@jit
def gradient_sums(x, dy, weights, at, weights_at, size, mean_hi, zero):
    """Sum dy and dy · (x - mean_hi) over the valid elements of one row."""
    step, about = lanes(zero), splat(mean_hi)
    total, products = 0.0, 0.0
    for left in range(0, size, BLOCK_ELEMENTS):
        right = min(size, left + BLOCK_ELEMENTS)
        sums, sums_2 = splat(zero), splat(zero)
        for i in range(left, right, step):
            prefetch(x, at + i + PREFETCH_ELEMENTS)
            prefetch(dy, at + i + PREFETCH_ELEMENTS)
            w = load_masked(weights, weights_at + i, right - i, zero)
            d = where_weighted(load_masked(x, at + i, right - i, zero) - about, w, zero)
            g = where_weighted(load_masked(dy, at + i, right - i, zero), w, zero)
            sums += g
            sums_2 = fma(g, d, sums_2)
        total += float(reduce_add(sums))
        products += float(reduce_add(sums_2))
    return total, products
