"""The backward kernel of `columns`."""

import numpy as np
from numba import types
from numba.extending import overload

from normkit.backends.numba.columns.moments import AHEAD, BLOCK_ROWS, GROUP, add_folded, repeat
from normkit.backends.numba.compile import INLINE, cast, inline, jit, kernel, pointer, record
from normkit.backends.numba.epilogue import bounds_of, gates_of, pass_between
from normkit.backends.numba.memory import fence, prefetch, put, take, until_stream
from normkit.backends.numba.output import column_writer, leave
from normkit.backends.numba.record import REDUCE_PARTIALS
from normkit.backends.numba.scratch import array, fill, free, numbers, row_of
from normkit.backends.numba.simd import fma, lanes, splat, total
from normkit.backends.numba.units import place_of
from normkit.backends.numba.weight_grads import add_parts


def weighted(dy, weights, row):
    """Dy times the weight of its row; as it is if rows have none (`weights` is None)."""
    raise NotImplementedError("compiled code only")


@overload(weighted, jit_options=INLINE)
def _weighted(dy, weights, row):
    if weights is types.none:
        return lambda dy, weights, row: dy
    return lambda dy, weights, row: dy * splat(weights[row])


@jit
def product_rows(x, dy, start, rows, stride, high, weights, sums, zero, gates, bounds):
    """Sums over the rows of x - high, g and g (x - high), where g = dy · weight of the row, within the bounds."""
    step, width = lanes(zero), high.size
    fill(sums, zero)
    deviations, plain, crossed = row_of(sums, 0, width), row_of(sums, 1, width), row_of(sums, 2, width)
    group = GROUP // 2  # of two tensors
    for top in range(0, rows, group):
        begin, height = start + top * stride, min(group, rows - top)
        for c in range(0, width, step):
            at, n = begin + c, width - c
            about, some_gates = take(high, c, n, zero), gates_of(c, n, zero, gates, bounds)
            d_sum, p_sum, c_sum = take(deviations, c, n, zero), take(plain, c, n, zero), take(crossed, c, n, zero)
            for row in range(top, top + height):
                prefetch(x, at + AHEAD)
                prefetch(dy, at + AHEAD)
                d = take(x, at, n, zero) - about
                p = weighted(pass_between(take(dy, at, n, zero), d, some_gates), weights, row)
                d_sum += d
                p_sum += p
                c_sum = fma(p, d, c_sum)
                at += stride
            put(deviations, c, d_sum, n, zero)
            put(plain, c, p_sum, n, zero)
            put(crossed, c, c_sum, n, zero)


@inline
def projections(c, n, zero, x, dy, tables, gates, bounds):
    """What some columns give to dx, see `fill_coefficients`; and their gates."""
    size = tables.size // 6
    high, rstd, scale = take(tables, c, n, zero), take(tables, size + c, n, zero), take(tables, 2 * size + c, n, zero)
    crossed, plain = take(tables, 3 * size + c, n, zero), take(tables, 4 * size + c, n, zero)
    return high, rstd, scale, crossed, plain, gates_of(c, n, zero, gates, bounds)


@inline
def project(at, n, zero, known, x, dy, tables, gates, bounds):
    """Dx of rows whose columns have their own weight."""
    high, rstd, scale, crossed, plain, some_gates = known
    prefetch(x, at + AHEAD)
    prefetch(dy, at + AHEAD)
    d = take(x, at, n, zero) - high
    return pass_between(take(dy, at, n, zero), d, some_gates) * scale - fma(d * rstd, crossed, plain)


write_rows = column_writer(projections, project)


@inline
def project_part(x, dy, at, n, zero, known, weight, dweight, dbias):
    """Dx of a part of a row that has one weight, and dweight and dbias with what the part adds to them."""
    high, rstd, scale, crossed, plain, shift = known
    d, p = (take(x, at, n, zero) - high) * rstd, take(dy, at, n, zero)
    return p * (scale * weight) - fma(d, crossed, plain), fma(p, d + shift, dweight), dbias + p


@jit
def project_rows_of(x, dy, dx, at, stride, rows, tables, weight, dweight, dbias, streams, zero):
    """Dx of some rows, each of which has one weight, and their shares of dweight and dbias.

    Four at once, for which the tables are read once; where rows are left over the last is taken more than once. All are
    read before any is written: behind a store to the same place of another page, a load would wait (see `streams`).
    """
    step, size, last, none = lanes(zero), tables.size // 6, rows - 1, splat(zero)
    high, rstd, scale = row_of(tables, 0, size), row_of(tables, 1, size), row_of(tables, 2, size)
    crossed, plain, shift = row_of(tables, 3, size), row_of(tables, 4, size), row_of(tables, 5, size)
    streams = streams and until_stream(dx, at) == 0 and until_stream(dx, at + stride) == 0
    for r_0 in range(0, rows, 4):
        r_1, r_2, r_3 = min(r_0 + 1, last), min(r_0 + 2, last), min(r_0 + 3, last)
        at_0, at_1, at_2, at_3 = at + r_0 * stride, at + r_1 * stride, at + r_2 * stride, at + r_3 * stride
        w_0, w_1, w_2, w_3 = splat(weight[r_0]), splat(weight[r_1]), splat(weight[r_2]), splat(weight[r_3])
        dw_0, dw_1, dw_2, dw_3 = none, none, none, none
        db_0, db_1, db_2, db_3 = none, none, none, none
        for i in range(0, size, step):
            n = size - i
            some = (take(high, i, n, zero), take(rstd, i, n, zero), take(scale, i, n, zero))
            known = *some, take(crossed, i, n, zero), take(plain, i, n, zero), take(shift, i, n, zero)
            dx_0, dw_0, db_0 = project_part(x, dy, at_0 + i, n, zero, known, w_0, dw_0, db_0)
            dx_1, dw_1, db_1 = project_part(x, dy, at_1 + i, n, zero, known, w_1, dw_1, db_1)
            dx_2, dw_2, db_2 = project_part(x, dy, at_2 + i, n, zero, known, w_2, dw_2, db_2)
            dx_3, dw_3, db_3 = project_part(x, dy, at_3 + i, n, zero, known, w_3, dw_3, db_3)
            leave(dx, at_0 + i, dx_0, n, streams, zero)
            leave(dx, at_1 + i, dx_1, n, streams, zero)
            leave(dx, at_2 + i, dx_2, n, streams, zero)
            leave(dx, at_3 + i, dx_3, n, streams, zero)
        dweight[r_0], dweight[r_1], dweight[r_2], dweight[r_3] = total(dw_0), total(dw_1), total(dw_2), total(dw_3)
        dbias[r_0], dbias[r_1], dbias[r_2], dbias[r_3] = total(db_0), total(db_1), total(db_2), total(db_3)


@jit
def coefficients_of_columns(g, partial, rstds, coefficients, a, k0, k1, zero):
    """`coefficients_of` where each column is a statistic, and rows have the weights: of many columns and few rows.

    What is asked of g is asked before: a loop that may write over it would ask each time.
    """
    width, units, first, share = g.k, g.a * g.k, a * g.k, 1.0 / float(g.r)
    at, of_batch, centred = a * 3 * width, g.precomputed == 0, g.precomputed == 0 and g.subtract_mean != 0
    for k in range(k0, k1):
        unit, rstd = first + k, float(rstds[first + k])
        low = partial[at + k] * share if centred else 0.0
        plain = partial[at + width + k]
        crossed = (partial[at + 2 * width + k] - low * plain) * rstd
        coefficients[unit] = cast(low, zero)
        coefficients[units + unit] = cast(plain * share, zero) if centred else zero
        coefficients[2 * units + unit] = cast(crossed * share, zero) if of_batch else zero


@jit
def coefficients_of(g, partial, weight, rstds, coefficients, dweights, parts, a, k0, k1, zero):
    """What dx needs of each statistic (low, mean of g, mean of g x_hat), and dweight and dbias of its columns."""
    length, width, units = g.s, g.k * g.s, g.a * g.k
    chunks = (g.r + g.chunk - 1) // g.chunk
    if length == 1 and g.r_step != 0:  # there is one chunk
        coefficients_of_columns(g, partial, rstds, coefficients, a, k0, k1, zero)
        return
    columns = (k1 - k0) * length
    share = 1.0 / float(g.r * length)
    totals = numbers(3 * columns, 0.0)
    fill(totals, 0.0)
    for j in range(chunks):
        for i in range(3):
            at = ((a * chunks + j) * 3 + i) * width + k0 * length
            add_folded(partial[at : at + columns], row_of(totals, i, columns))
    deviations, plains, crosseds = row_of(totals, 0, columns), row_of(totals, 1, columns), row_of(totals, 2, columns)
    dweight, dbias = row_of(dweights, a, g.affine_size), row_of(dweights, parts + a, g.affine_size)
    first_place = place_of(g, a * g.k)
    for k in range(k0, k1):
        unit, place = a * g.k + k, first_place + k * g.k_step
        rstd = float(rstds[unit])
        left = (k - k0) * length
        low, plain, crossed = 0.0, 0.0, 0.0
        if not g.precomputed and g.subtract_mean:
            for s in range(left, left + length):
                low += deviations[s]
            low *= share
        for s in range(length):
            column_plain = plains[left + s]
            column_crossed = (crosseds[left + s] - low * column_plain) * rstd
            factor = 1.0
            if g.r_step == 0:
                at = place + s // g.s_run * g.s_step
                factor = float(weight[at])
                if s % g.s_run == 0:
                    dweight[at], dbias[at] = zero, zero
                dweight[at] += cast(column_crossed, zero)
                dbias[at] += cast(column_plain, zero)
            plain += factor * column_plain
            crossed += factor * column_crossed
        coefficients[unit] = cast(low, zero)
        coefficients[units + unit] = cast(plain * share, zero) if g.subtract_mean and not g.precomputed else zero
        coefficients[2 * units + unit] = cast(crossed * share, zero) if not g.precomputed else zero
    free(totals)


@jit
def fill_coefficients(g, weight, means, rstds, coefficients, a, left, columns, tables, zero):
    """What each column gives to dx: high, rstd, weight · rstd, mean of g x_hat · rstd, a constant, the share of low."""
    wide, units, step = tables.size // 6, g.a * g.k, lanes(zero)
    if g.s == 1 and g.r_step != 0:
        first = a * g.k + left
        for c in range(0, columns, step):
            n = columns - c
            some_rstd, low = take(rstds, first + c, n, zero), take(coefficients, first + c, n, zero)
            some_plain = take(coefficients, units + first + c, n, zero) * some_rstd
            some_crossed = take(coefficients, 2 * units + first + c, n, zero) * some_rstd
            some_shift = (splat(zero) - low) * some_rstd
            put(tables, c, take(means, first + c, n, zero), n, zero)
            put(tables, wide + c, some_rstd, n, zero)
            put(tables, 2 * wide + c, some_rstd, n, zero)
            put(tables, 3 * wide + c, some_crossed, n, zero)
            put(tables, 4 * wide + c, fma(some_shift, some_crossed, some_plain), n, zero)
            put(tables, 5 * wide + c, some_shift, n, zero)
        return
    high, rstd, scale = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
    crossed, plain, shift = row_of(tables, 3, wide), row_of(tables, 4, wide), row_of(tables, 5, wide)
    c, first_place = 0, place_of(g, a * g.k)
    for k in range(left // g.s, (left + columns) // g.s):
        unit, place = a * g.k + k, first_place + k * g.k_step
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


@jit
def fill_gates(g, weight, rstds, shifts, a, left, columns, gates):
    """How the results of each column of a tile were made: weight · rstd, and what was added."""
    factor, shift = row_of(gates, 0, gates.size // 2), row_of(gates, 1, gates.size // 2)
    c, first_place = 0, place_of(g, a * g.k)
    for k in range(left // g.s, (left + columns) // g.s):
        unit = a * g.k + k
        for _ in range(g.s):
            factor[c], shift[c] = rstds[unit] * weight[first_place + k * g.k_step], shifts[unit]
            c += 1
    for table in (factor, shift):
        repeat(table, columns)


def make_kernel(storage, compute, clamped):
    """dx, and dweight and dbias by part."""
    clamped = clamped or None  # a type each: it decides what is compiled

    @kernel
    def columns_backward(data, part, parts, phase):
        g = record(data)
        x = pointer(g.x, storage)
        dy = pointer(g.dy, storage)
        dx = pointer(g.dx, storage)
        weight = array(pointer(g.weight, compute), g.affine_size)
        means = pointer(g.mean, compute)
        rstds = pointer(g.rstd, compute)
        coefficients = pointer(g.coefficients, compute)
        shifts = pointer(g.shift, compute)
        zero, one = compute(0), np.int64(1)
        bounds = bounds_of(g, zero, clamped)
        streams = g.stream != 0
        rows, width = g.r, g.k * g.s
        chunks = (rows + g.chunk - 1) // g.chunk
        tiles = (width + g.tile - 1) // g.tile
        by_row = g.r_step != 0
        partial = array(pointer(g.partial, np.float64), g.a * chunks * 3 * width)
        affine_parts = g.affine_parts
        dweights = array(pointer(g.dweights, compute), 2 * affine_parts * g.affine_size)
        if phase == REDUCE_PARTIALS:
            add_parts(g, compute, part, parts)
            return
        # the other phases are those of the forward kernel
        chunk_tasks = 1 if phase == 0 else chunks
        tasks = g.a * g.k if phase == 2 else g.a * tiles * chunk_tasks
        begin, end = tasks * part // parts, tasks * (part + 1) // parts
        if phase == 2:
            while begin < end:
                a, k = begin // g.k, begin % g.k
                stop = min(g.k, k + end - begin)
                coefficients_of(g, partial, weight, rstds, coefficients, dweights, affine_parts, a, k, stop, zero)
                begin += stop - k
            return
        highs, sums = numbers(g.tile * g.fold, zero), numbers(3 * g.tile * g.fold, zero)
        all_tables = numbers(6 * g.tile * g.fold, zero)
        all_gates = numbers(2 * g.tile * g.fold if clamped else 0, zero)
        tabulated = -1
        for step in range(end - begin):
            task = end - 1 - step if phase == 3 else begin + step  # what was read last may be in a cache still
            a, tile, chunk = task // chunk_tasks // tiles, task // chunk_tasks % tiles, task % chunk_tasks
            left, right = tile * g.tile, min((tile + 1) * g.tile, width)
            columns = right - left
            wide = columns * g.fold
            first_chunk, last_chunk = (0, chunks) if phase == 0 else (chunk, chunk + 1)
            fresh = tabulated != a * tiles + tile
            tabulated = a * tiles + tile
            tables, gates = all_tables[: 6 * wide], all_gates[: 2 * wide]
            if clamped and fresh:
                fill_gates(g, weight, rstds, shifts, a, left, columns, gates)
            if phase <= 1:
                if fresh:
                    c = 0
                    for unit in range(a * g.k + left // g.s, a * g.k + right // g.s):
                        for _ in range(g.s):
                            highs[c] = means[unit]
                            c += 1
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
                        begins = (a * rows + row) * width + left
                        some = (x, dy, begins, height, width * fold, highs[:n])
                        if by_row:
                            product_rows(*some, weight[row:], sums[: 3 * n], zero, gates, bounds)
                        else:
                            product_rows(*some, None, sums[: 3 * n], zero, gates, bounds)
                        for i in range(3):
                            totals = partial[at + i * width : at + i * width + columns]
                            add_folded(row_of(sums, i, n), totals)
                        row += height * fold
            if phase == 1:
                continue
            if fresh:
                if phase == 0:
                    k0, k1 = left // g.s, right // g.s
                    coefficients_of(g, partial, weight, rstds, coefficients, dweights, affine_parts, a, k0, k1, zero)
                fill_coefficients(g, weight, means, rstds, coefficients, a, left, columns, tables, zero)
            if g.dx == 0:
                continue
            if by_row:  # there is one chunk
                place, size = tabulated * g.affine_size, affine_parts * g.affine_size
                share = dweights[place : place + rows], dweights[size + place : size + place + rows]
                at = a * rows * width + left
                project_rows_of(x, dy, dx, at, width, rows, tables, weight, *share, streams, zero)
                continue
            for j in range(last_chunk - 1, first_chunk - 1, -1):
                row, bottom = j * g.chunk, min((j + 1) * g.chunk, rows)
                while row < bottom:
                    fold = g.fold if row + g.fold <= bottom else one
                    at, n = (a * rows + row) * width + left, columns * fold
                    height, here = (bottom - row) // fold, (x, dy, tables, gates, bounds)
                    write_rows(dx, at, height, width * fold, n, streams, zero, *here)
                    row += height * fold
        for scratch in (highs, sums, all_tables, all_gates):
            free(scratch)
        if streams:
            fence()

    return columns_backward
