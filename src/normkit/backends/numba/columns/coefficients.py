"""The coefficients of dx: of each statistic, from the sums over its chunks, and of each column, in tables."""

from normkit.backends.numba.affine import weight_offset
from normkit.backends.numba.columns.moments import add_folded, repeat
from normkit.backends.numba.compile import cast, jit
from normkit.backends.numba.memory import load_masked, store_masked
from normkit.backends.numba.scratch import alloc, fill, free, row_of
from normkit.backends.numba.simd import fma, lanes, splat


@jit
def column_stat_coefficients(g, chunk_sums, rstds, coefficients, a, k0, k1, zero):
    """Do as `stat_coefficients` where each column is a statistic and rows have the weights: many columns, few rows.

    What is read of g is read before: a loop that may write over it would read it each time.
    """
    width, num_stats, first, share = g.k, g.a * g.k, a * g.k, 1.0 / float(g.r)
    at, of_batch, subtract_mean = a * 3 * width, g.precomputed == 0, g.precomputed == 0 and g.subtract_mean != 0
    for k in range(k0, k1):
        stat, rstd = first + k, float(rstds[first + k])
        mean_lo = chunk_sums[at + k] * share if subtract_mean else 0.0
        g_sum = chunk_sums[at + width + k]
        gx_sum = (chunk_sums[at + 2 * width + k] - mean_lo * g_sum) * rstd
        coefficients[stat] = cast(mean_lo, zero)
        coefficients[num_stats + stat] = cast(g_sum * share, zero) if subtract_mean else zero
        coefficients[2 * num_stats + stat] = cast(gx_sum * share, zero) if of_batch else zero


@jit
def stat_coefficients(g, chunk_sums, weight, rstds, coefficients, partials, a, k0, k1, zero):
    """Compute mean_lo and the means of g and of g · x_hat of statistics, and a partial dweight and dbias."""
    length, width, num_stats = g.s, g.k * g.s, g.a * g.k
    chunks = (g.r + g.chunk - 1) // g.chunk
    if length == 1 and g.r_step != 0:  # there is one chunk
        column_stat_coefficients(g, chunk_sums, rstds, coefficients, a, k0, k1, zero)
        return
    columns = (k1 - k0) * length
    share = 1.0 / float(g.r * length)
    totals = alloc(3 * columns, 0.0)
    fill(totals, 0.0)
    for j in range(chunks):
        for i in range(3):
            at = ((a * chunks + j) * 3 + i) * width + k0 * length
            add_folded(chunk_sums[at : at + columns], row_of(totals, i, columns))
    d_sums, dy_sums, dyd_sums = row_of(totals, 0, columns), row_of(totals, 1, columns), row_of(totals, 2, columns)
    dweight, dbias = row_of(partials, a, g.affine_size), row_of(partials, g.num_partials + a, g.affine_size)
    first_offset = weight_offset(g, a * g.k)
    for k in range(k0, k1):
        stat, offset = a * g.k + k, first_offset + k * g.k_step
        rstd = float(rstds[stat])
        left = (k - k0) * length
        mean_lo, g_sum, gx_sum = 0.0, 0.0, 0.0
        if not g.precomputed and g.subtract_mean:
            for s in range(left, left + length):
                mean_lo += d_sums[s]
            mean_lo *= share
        for s in range(length):
            dy_sum = dy_sums[left + s]
            dyx_sum = (dyd_sums[left + s] - mean_lo * dy_sum) * rstd
            factor = 1.0
            if g.r_step == 0:
                at = offset + s // g.s_run * g.s_step
                factor = float(weight[at])
                if s % g.s_run == 0:
                    dweight[at], dbias[at] = zero, zero
                dweight[at] += cast(dyx_sum, zero)
                dbias[at] += cast(dy_sum, zero)
            g_sum += factor * dy_sum
            gx_sum += factor * dyx_sum
        coefficients[stat] = cast(mean_lo, zero)
        coefficients[num_stats + stat] = cast(g_sum * share, zero) if g.subtract_mean and not g.precomputed else zero
        coefficients[2 * num_stats + stat] = cast(gx_sum * share, zero) if not g.precomputed else zero
    free(totals)


@jit
def fill_tables(g, weight, stats, coefficients, a, left, columns, tables, zero):
    """Fill in mean_hi, rstd and shift of each column, and the coefficients of dy, x_hat and 1 in dx."""
    means, rstds = stats
    wide, num_stats, step = tables.size // 6, g.a * g.k, lanes(zero)
    if g.s == 1 and g.r_step != 0:
        first = a * g.k + left
        for c in range(0, columns, step):
            n = columns - c
            rstd_c, mean_lo = load_masked(rstds, first + c, n, zero), load_masked(coefficients, first + c, n, zero)
            mean_g = load_masked(coefficients, num_stats + first + c, n, zero) * rstd_c
            mean_gx = load_masked(coefficients, 2 * num_stats + first + c, n, zero) * rstd_c
            shift_c = (splat(zero) - mean_lo) * rstd_c
            store_masked(tables, c, load_masked(means, first + c, n, zero), n, zero)
            store_masked(tables, wide + c, rstd_c, n, zero)
            store_masked(tables, 2 * wide + c, rstd_c, n, zero)
            store_masked(tables, 3 * wide + c, mean_gx, n, zero)
            store_masked(tables, 4 * wide + c, fma(shift_c, mean_gx, mean_g), n, zero)
            store_masked(tables, 5 * wide + c, shift_c, n, zero)
        return
    mean_hi, rstd, dy_factor = row_of(tables, 0, wide), row_of(tables, 1, wide), row_of(tables, 2, wide)
    x_hat_factor, constant, shift = row_of(tables, 3, wide), row_of(tables, 4, wide), row_of(tables, 5, wide)
    c, first_offset = 0, weight_offset(g, a * g.k)
    for k in range(left // g.s, (left + columns) // g.s):
        stat, offset = a * g.k + k, first_offset + k * g.k_step
        for s in range(g.s):
            mean_hi[c], rstd[c], dy_factor[c] = means[stat], rstds[stat], rstds[stat]
            if g.r_step == 0:
                dy_factor[c] *= weight[offset + s // g.s_run * g.s_step]
            x_hat_factor[c] = coefficients[2 * num_stats + stat] * rstd[c]
            shift[c] = -coefficients[stat] * rstd[c]
            constant[c] = coefficients[num_stats + stat] * rstd[c] + shift[c] * x_hat_factor[c]
            c += 1
    for table in (mean_hi, rstd, dy_factor, x_hat_factor, constant, shift):
        repeat(table, columns)


@jit
def fill_mask_table(g, weight, rstds, shifts, a, left, columns, mask_table):
    """Fill in, of each column of a tile, factor and shift of its results: weight · rstd, and what was added."""
    factor, shift = row_of(mask_table, 0, mask_table.size // 2), row_of(mask_table, 1, mask_table.size // 2)
    c, first_offset = 0, weight_offset(g, a * g.k)
    for k in range(left // g.s, (left + columns) // g.s):
        stat = a * g.k + k
        for _ in range(g.s):
            factor[c], shift[c] = rstds[stat] * weight[first_offset + k * g.k_step], shifts[stat]
            c += 1
    for table in (factor, shift):
        repeat(table, columns)


@jit
def fill_means(g, means, a, left, columns, table):
    """Fill in mean_hi of each column of a tile."""
    c = 0
    for stat in range(a * g.k + left // g.s, a * g.k + (left + columns) // g.s):
        for _ in range(g.s):
            table[c] = means[stat]
            c += 1
    repeat(table, columns)
