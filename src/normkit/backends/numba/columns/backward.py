"""The backward kernel of `columns`.

With g = dy · weight, dx = rstd · (g - mean(g) - x_hat · mean(g · x_hat)), or rstd · g if mean and rstd are precomputed:
`sums.py` takes the sums, `coefficients.py` makes of them what each column needs. dweight and dbias are the same sums,
or, where each row has its own weight, taken while dx is written.
"""

import numpy as np

from normkit.backends.numba.columns.coefficients import fill_mask_table, fill_means, fill_tables, stat_coefficients
from normkit.backends.numba.columns.moments import PREFETCH_ELEMENTS
from normkit.backends.numba.columns.sums import sum_chunk
from normkit.backends.numba.compile import inline, jit, kernel, pointer, record
from normkit.backends.numba.epilogue import bounds_of, column_mask_params, relu_backward
from normkit.backends.numba.memory import fence, load_masked, prefetch, until_aligned
from normkit.backends.numba.output import column_writer, store_streaming
from normkit.backends.numba.record import REDUCE_PARTIALS
from normkit.backends.numba.scratch import alloc, array, free, row_of
from normkit.backends.numba.simd import fma, lanes, reduce_add, splat
from normkit.backends.numba.weight_grads import reduce_partials


@inline
def column_params(c, n, zero, tensors, precomputed, tables, mask_table, bounds):
    """Return mean_hi, rstd, the coefficients of dy, x_hat and 1 in dx, and the mask parameters of n columns."""
    size = tables.size // 6
    mean_hi, rstd = load_masked(tables, c, n, zero), load_masked(tables, size + c, n, zero)
    dy_factor, x_hat_factor = load_masked(tables, 2 * size + c, n, zero), load_masked(tables, 3 * size + c, n, zero)
    constant = load_masked(tables, 4 * size + c, n, zero)
    return mean_hi, rstd, dy_factor, x_hat_factor, constant, column_mask_params(c, n, zero, mask_table, bounds)


@inline
def columns_dx(offset, n, zero, params, tensors, precomputed, tables, mask_table, bounds):
    """Return dx of elements whose columns have their own weight."""
    x, dy = tensors
    mean_hi, rstd, dy_factor, x_hat_factor, constant, mask = params
    prefetch(x, offset + PREFETCH_ELEMENTS)
    prefetch(dy, offset + PREFETCH_ELEMENTS)
    d = load_masked(x, offset, n, zero) - mean_hi
    masked_dy = relu_backward(load_masked(dy, offset, n, zero), d, mask)
    if precomputed:  # x has no part in it: 0 · x_hat would be NaN where x is NaN or infinite
        return masked_dy * dy_factor
    return masked_dy * dy_factor - fma(d * rstd, x_hat_factor, constant)


write_rows = column_writer(column_params, columns_dx)


@inline
def row_dx(tensors, offset, n, zero, params, weight, dweight, dbias):
    """Return dx of elements of a row with one weight, and dweight and dbias with what they add to them."""
    x, dy = tensors
    mean_hi, rstd, dy_factor, x_hat_factor, constant, shift = params
    d, dy_i = (load_masked(x, offset, n, zero) - mean_hi) * rstd, load_masked(dy, offset, n, zero)
    dx = dy_i * (dy_factor * weight) - fma(d, x_hat_factor, constant)
    return dx, fma(dy_i, d + shift, dweight), dbias + dy_i


@jit
def write_weighted_rows(tensors, dx, at, stride, rows, tables, weight, dweight, dbias, streams, zero):
    """Write dx of rows that have one weight each, and their shares of dweight and dbias.

    Four at once, for which the tables are read once; where rows are left over the last is taken more than once. All are
    read before any is written: behind a store to the same offset of another page, a load would wait (see `output`).
    """
    step, size, last, none = lanes(zero), tables.size // 6, rows - 1, splat(zero)
    mean_hi, rstd, dy_factor = row_of(tables, 0, size), row_of(tables, 1, size), row_of(tables, 2, size)
    x_hat_factor, constant, shift = row_of(tables, 3, size), row_of(tables, 4, size), row_of(tables, 5, size)
    streams = streams and until_aligned(dx, at) == 0 and until_aligned(dx, at + stride) == 0
    for r_0 in range(0, rows, 4):
        r_1, r_2, r_3 = min(r_0 + 1, last), min(r_0 + 2, last), min(r_0 + 3, last)
        at_0, at_1, at_2, at_3 = at + r_0 * stride, at + r_1 * stride, at + r_2 * stride, at + r_3 * stride
        w_0, w_1, w_2, w_3 = splat(weight[r_0]), splat(weight[r_1]), splat(weight[r_2]), splat(weight[r_3])
        dw_0, dw_1, dw_2, dw_3 = none, none, none, none
        db_0, db_1, db_2, db_3 = none, none, none, none
        for i in range(0, size, step):
            n = size - i
            scaling = (
                load_masked(mean_hi, i, n, zero),
                load_masked(rstd, i, n, zero),
                load_masked(dy_factor, i, n, zero),
            )
            params = (
                *scaling,
                load_masked(x_hat_factor, i, n, zero),
                load_masked(constant, i, n, zero),
                load_masked(shift, i, n, zero),
            )
            dx_0, dw_0, db_0 = row_dx(tensors, at_0 + i, n, zero, params, w_0, dw_0, db_0)
            dx_1, dw_1, db_1 = row_dx(tensors, at_1 + i, n, zero, params, w_1, dw_1, db_1)
            dx_2, dw_2, db_2 = row_dx(tensors, at_2 + i, n, zero, params, w_2, dw_2, db_2)
            dx_3, dw_3, db_3 = row_dx(tensors, at_3 + i, n, zero, params, w_3, dw_3, db_3)
            store_streaming(dx, at_0 + i, dx_0, n, streams, zero)
            store_streaming(dx, at_1 + i, dx_1, n, streams, zero)
            store_streaming(dx, at_2 + i, dx_2, n, streams, zero)
            store_streaming(dx, at_3 + i, dx_3, n, streams, zero)
        dweight[r_0], dweight[r_1] = reduce_add(dw_0), reduce_add(dw_1)
        dweight[r_2], dweight[r_3] = reduce_add(dw_2), reduce_add(dw_3)
        dbias[r_0], dbias[r_1] = reduce_add(db_0), reduce_add(db_1)
        dbias[r_2], dbias[r_3] = reduce_add(db_2), reduce_add(db_3)


def make_kernel(storage, compute, has_bounds):
    """Compile the kernel: dx, and partial dweights and dbiases."""
    has_bounds = has_bounds or None  # of different types, which decide overloads

    @kernel
    def columns_backward(data, part, parts, phase):
        g = record(data)
        tensors = pointer(g.x, storage), pointer(g.dy, storage)
        dx = pointer(g.dx, storage)
        weight = array(pointer(g.weight, compute), g.affine_size)
        stats = pointer(g.mean, compute), pointer(g.rstd, compute)
        means, rstds = stats
        coefficients = pointer(g.coefficients, compute)
        shifts = pointer(g.shift, compute)
        zero, one = compute(0), np.int64(1)
        bounds = bounds_of(g, zero, has_bounds)
        streams, precomputed = g.stream != 0, g.precomputed != 0
        rows, width = g.r, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        chunk_sums = array(pointer(g.chunk_sums, np.float64), g.a * chunks * 3 * width)
        partials = array(pointer(g.partials, compute), 2 * g.num_partials * g.affine_size)
        if phase == REDUCE_PARTIALS:
            reduce_partials(g, compute, part, parts)
            return
        # the other phases are those of the forward kernel
        chunk_tasks = 1 if phase == 0 else chunks
        tasks = g.a * g.k if phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                stat_coefficients(g, chunk_sums, weight, rstds, coefficients, partials, a, k, stop, zero)
                begin += stop - k
            return
        all_means, sums = alloc(g.tile * g.fold, zero), alloc(3 * g.tile * g.fold, zero)
        all_tables = alloc(6 * g.tile * g.fold, zero)
        all_masks = alloc(2 * g.tile * g.fold if has_bounds else 0, zero)
        filled = -1
        for step in range(end - begin):
            task = end - 1 - step if phase == 3 else begin + step  # what was read last may be in a cache still
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            columns = right - left
            wide = columns * g.fold
            first_chunk, last_chunk = (0, chunks) if phase == 0 else (chunk, chunk + 1)
            fresh = filled != a * tiles + tile
            filled = a * tiles + tile
            tables, mask_table = all_tables[: 6 * wide], all_masks[: 2 * wide]
            if has_bounds and fresh:
                fill_mask_table(g, weight, rstds, shifts, a, left, columns, mask_table)
            if phase <= 1:
                if fresh:
                    fill_means(g, means, a, left, columns, all_means[:wide])
                for j in range(first_chunk, last_chunk):
                    masking = (mask_table, bounds)
                    sum_chunk(g, tensors, a, j, left, columns, all_means, weight, sums, chunk_sums, zero, masking)
            if phase == 1:
                continue
            if fresh:
                if phase == 0:
                    k0, k1 = left // g.s, right // g.s
                    stat_coefficients(g, chunk_sums, weight, rstds, coefficients, partials, a, k0, k1, zero)
                fill_tables(g, weight, stats, coefficients, a, left, columns, tables, zero)
            if g.dx == 0:
                continue
            if g.r_step != 0:  # there is one chunk
                first, size = filled * g.affine_size, g.num_partials * g.affine_size
                dweight, dbias = partials[first : first + rows], partials[size + first : size + first + rows]
                at = a * rows * width + left
                write_weighted_rows(tensors, dx, at, width, rows, tables, weight, dweight, dbias, streams, zero)
                continue
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else one
                    at, n = (a * rows + row) * width + left, columns * fold
                    height, operands = (bottom - row) // fold, (tensors, precomputed, tables, mask_table, bounds)
                    write_rows(dx, at, height, width * fold, n, streams, zero, *operands)
                    row += height * fold
        for scratch in (all_means, sums, all_tables, all_masks):
            free(scratch)
        if streams:
            fence()

    return columns_backward
