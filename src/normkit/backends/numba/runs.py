"""Kernels for long runs: each statistic is taken by one thread, walking along S.

The sums of a block, of x and of its squares, are taken about a number close to its mean (the mean of its beginning; if
that proves to be too far off, a second time about a better one), and blocks are merged in float64 (Chan, Golub &
LeVeque 1979). A mean is kept as a pair, ``high`` in the compute type and ``low``, what is left:
x - mean must be right to the last place even when the mean is ten thousand standard deviations.
"""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import (
    PIECE,
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

BLOCK = 4096  # numbers whose sum may stay in the compute type
SAMPLE = 256  # numbers whose mean stands for that of a block, unless it proves to be far from it
FAR = 0.75  # of the second moment about the sample's mean may be due to its distance from the block's


@jit_sum
def sum_about(run, pivot, zero):
    total = zero
    for i in range(run.size):
        total += minus(load(run, i), pivot)
    return total


@jit_sum
def sums_about(run, pivot, zero):
    first = zero
    second = zero
    for i in range(run.size):
        deviation = minus(load(run, i), pivot)
        first += deviation
        second += deviation * deviation
    return first, second


@jit
def merge(count, mean, m2, other_count, other_mean, other_m2):
    """Count, mean and sum of squared deviations of two samples together."""
    if count == 0.0:  # not by the formula: the square of a huge mean may overflow
        return other_count, other_mean, other_m2
    total = count + other_count
    delta = other_mean - mean
    return total, mean + delta * (other_count / total), m2 + other_m2 + delta * delta * (count * other_count / total)


@jit
def wide_moments(x, base, rows, stride, size, centred):
    """`moments` with every sum in float64: for squares that the compute type cannot hold."""
    total, m2 = 0.0, 0.0
    for row in range(rows):
        for i in range(size):
            total += float(load(x, base + row * stride + i))
    mean = total / (rows * size) if centred else 0.0
    for row in range(rows):
        for i in range(size):
            deviation = float(load(x, base + row * stride + i)) - mean
            m2 += deviation * deviation
    return mean, m2


@jit
def sums_of_block(x, start, rows, stride, width, pivot, zero):
    """`sums_about` of several runs, added in float64."""
    first, second = 0.0, 0.0
    for at in range(start, start + rows * stride, stride):
        f, s = sums_about(x[at : at + width], pivot, zero)
        first += f
        second += s
    return first, second


@jit
def moments(x, base, rows, stride, size, centred, zero):
    """Mean and biased variance, in float64, of `rows` runs of `size` numbers, `stride` apart."""
    height = max(1, BLOCK // size)
    count, mean, m2 = 0.0, 0.0, 0.0
    for top in range(0, rows, height):
        block_rows = min(height, rows - top)
        for left in range(0, size, BLOCK):
            width = min(BLOCK, size - left)
            start = base + top * stride + left
            n = float(block_rows * width)
            pivot = zero
            if centred:
                pivot = load(x, start)
                sample = min(width, SAMPLE)
                pivot += cast(float(sum_about(x[start : start + sample], pivot, zero)) / sample, zero)
            first, second = sums_of_block(x, start, block_rows, stride, width, pivot, zero)
            if centred and first * first > FAR * n * second:
                pivot += cast(first / n, zero)
                first, second = sums_of_block(x, start, block_rows, stride, width, pivot, zero)
            if centred:
                rest = first / n
                count, mean, m2 = merge(count, mean, m2, n, float(pivot) + rest, max(second - rest * first, 0.0))
            else:
                count += n
                m2 += second
    if not np.isfinite(m2):
        mean, m2 = wide_moments(x, base, rows, stride, size, centred)
    return mean, m2 / count


@jit
def scale_run(x, y, high, scale, shift):
    for i in range(x.size):
        store(y, i, (load(x, i) - high) * scale + shift)


@jit
def scale_run_by(x, y, high, rstd, shift, weight, bias):
    for i in range(x.size):
        store(y, i, ((load(x, i) - high) * rstd + shift) * weight[i] + bias[i])


def forward(storage, compute):
    """Statistics (unless given) and the normalized result."""

    @kernel
    def runs_forward(data, part, parts):
        g = carray(data, 1, RECORD)[0]
        size = g.a * g.r * g.k * g.s
        x = carray(pointer(g.x), size, storage)
        y = carray(pointer(g.y), size, storage)
        weight = carray(pointer(g.weight), g.affine_size, compute)
        bias = carray(pointer(g.bias), g.affine_size, compute)
        means = carray(pointer(g.mean), g.a * g.k, compute)
        variances = carray(pointer(g.var), g.a * g.k, compute)
        rstds = carray(pointer(g.rstd), g.a * g.k, compute)
        zero = compute(0)
        rows, length, stride = g.r, g.s, g.k * g.s
        by_place = g.s_step != 0 and g.s_run == 1  # each number of a run has its own weight
        run, step = (length, 0) if by_place else (g.s_run, g.s_step)
        buffer = np.empty(PIECE if g.stream else 0, storage)
        units = g.a * g.k
        for unit in range(units * part // parts, units * (part + 1) // parts):
            a, k = unit // g.k, unit % g.k
            base = a * rows * stride + k * length
            if g.given:
                mean, var = float(means[unit]), float(variances[unit])
            else:
                mean, var = moments(x, base, rows, stride, length, g.centred != 0, zero)
            rstd = cast(1.0 / np.sqrt(var + g.eps), zero)
            high = cast(mean, zero)
            low = cast(mean - float(high), zero)
            means[unit] = high
            variances[unit] = cast(var, zero)
            rstds[unit] = rstd
            place = a % g.a_period * g.a_step + k * g.k_step
            for at in range(base, base + rows * stride, stride):
                for piece in range(length // run):
                    scale = rstd * weight[place + piece * step]
                    shift = bias[place + piece * step] - low * scale
                    begin = at + piece * run
                    for left in range(0, run, PIECE):
                        size = min(PIECE, run - left)
                        start = begin + left
                        out = target(y, start, size, buffer)
                        if by_place:
                            w, b = weight[place + left : place + left + size], bias[place + left : place + left + size]
                            scale_run_by(x[start : start + size], out, high, rstd, -low * rstd, w, b)
                        else:
                            scale_run(x[start : start + size], out, high, scale, shift)
                        flush(y, start, size, buffer)
        if g.stream:
            fence()

    return runs_forward


@jit_sum
def products(x, dy, high, zero):
    """Sums of x - high, dy and their product."""
    deviations = zero
    plain = zero
    crossed = zero
    for i in range(x.size):
        deviation = minus(load(x, i), high)
        gradient = load(dy, i)
        deviations += deviation
        plain += gradient
        crossed += gradient * deviation
    return deviations, plain, crossed


@jit
def long_products(x, dy, high, zero):
    """`products` of a run of any length, its blocks added in float64."""
    deviations, plain, crossed = 0.0, 0.0, 0.0
    for left in range(0, x.size, BLOCK):
        right = min(left + BLOCK, x.size)
        d, p, c = products(x[left:right], dy[left:right], high, zero)
        deviations += d
        plain += p
        crossed += c
    return deviations, plain, crossed


@jit_sum
def products_by(x, dy, high, rstd, shift, weight, dweight, dbias, zero):
    """Sums of g = dy * weight and g * x_hat; dy * x_hat and dy are added to dweight and dbias."""
    plain = zero
    crossed = zero
    for i in range(x.size):
        x_hat = minus(load(x, i), high) * rstd + shift
        gradient = load(dy, i)
        dbias[i] += gradient
        dweight[i] += gradient * x_hat
        plain += gradient * weight[i]
        crossed += gradient * weight[i] * x_hat
    return plain, crossed


@jit
def project_run(x, dy, dx, high, rstd, shift, weight, plain, crossed):
    for i in range(x.size):
        x_hat = (load(x, i) - high) * rstd + shift
        store(dx, i, (minus(load(dy, i) * weight, plain) - x_hat * crossed) * rstd)


@jit
def project_run_by(x, dy, dx, high, rstd, shift, weight, plain, crossed):
    for i in range(x.size):
        x_hat = (load(x, i) - high) * rstd + shift
        store(dx, i, (minus(load(dy, i) * weight[i], plain) - x_hat * crossed) * rstd)


def backward(storage, compute):
    """dx, and dweight and dbias by part (to be summed over the parts)."""

    @kernel
    def runs_backward(data, part, parts):
        g = carray(data, 1, RECORD)[0]
        size = g.a * g.r * g.k * g.s
        x = carray(pointer(g.x), size, storage)
        dy = carray(pointer(g.dy), size, storage)
        dx = carray(pointer(g.dx), size, storage)
        weight = carray(pointer(g.weight), g.affine_size, compute)
        means = carray(pointer(g.mean), g.a * g.k, compute)
        rstds = carray(pointer(g.rstd), g.a * g.k, compute)
        part_size = max(g.chunk, g.a_period)  # units whose gradients of weight and bias lie in one part
        affine_parts = (g.a + part_size - 1) // part_size
        dweights = carray(pointer(g.dweight), (2, affine_parts, g.affine_size), compute)
        zero = compute(0)
        rows, length, stride = g.r, g.s, g.k * g.s
        by_place = g.s_step != 0 and g.s_run == 1
        run, step = (length, 0) if by_place else (g.s_run, g.s_step)
        buffer = np.empty(PIECE if g.stream else 0, storage)
        n = float(rows * length)
        chunks = (g.a + g.chunk - 1) // g.chunk
        for task in range(chunks * g.k * part // parts, chunks * g.k * (part + 1) // parts):
            chunk, k = task // g.k, task % g.k
            for a in range(chunk * g.chunk, min((chunk + 1) * g.chunk, g.a)):
                base = a * rows * stride + k * length
                place = a % g.a_period * g.a_step + k * g.k_step
                unit = a * g.k + k
                high, rstd = means[unit], rstds[unit]
                dweight = dweights[0, a // part_size, place:]
                dbias = dweights[1, a // part_size, place:]
                deviations, plain, crossed = 0.0, 0.0, 0.0
                low = zero
                if by_place:
                    if not g.given and g.centred:
                        for at in range(base, base + rows * stride, stride):
                            for left in range(0, length, BLOCK):
                                right = min(left + BLOCK, length)
                                deviations += sum_about(x[at + left : at + right], high, zero)
                        low = cast(deviations / n, zero)
                    for at in range(base, base + rows * stride, stride):
                        for left in range(0, length, BLOCK):
                            right = min(left + BLOCK, length)
                            p, c = products_by(
                                x[at + left : at + right],
                                dy[at + left : at + right],
                                high,
                                rstd,
                                -low * rstd,
                                weight[place + left : place + right],
                                dweight[left:right],
                                dbias[left:right],
                                zero,
                            )
                            plain += p
                            crossed += c
                else:
                    for piece in range(length // run):
                        piece_plain, piece_crossed = 0.0, 0.0
                        for at in range(base + piece * run, base + piece * run + rows * stride, stride):
                            d, p, c = long_products(x[at : at + run], dy[at : at + run], high, zero)
                            deviations += d
                            piece_plain += p
                            piece_crossed += c
                        factor = weight[place + piece * step]
                        plain += factor * piece_plain
                        crossed += factor * piece_crossed
                        dweight[piece * step] = cast(piece_crossed, zero)
                        dbias[piece * step] = cast(piece_plain, zero)
                    if not g.given and g.centred:
                        low = cast(deviations / n, zero)
                    for piece in range(length // run):
                        crossed_part = float(dweight[piece * step]) - float(low) * float(dbias[piece * step])
                        dweight[piece * step] = cast(crossed_part * float(rstd), zero)
                    crossed = (crossed - float(low) * plain) * float(rstd)
                if g.dx == 0:
                    continue
                mean_plain, mean_crossed = zero, zero
                if not g.given:
                    mean_crossed = cast(crossed / n, zero)
                    if g.centred:
                        mean_plain = cast(plain / n, zero)
                shift = -low * rstd
                for at in range(base, base + rows * stride, stride):
                    for piece in range(length // run):
                        factor = weight[place + piece * step]
                        begin = at + piece * run
                        for left in range(0, run, PIECE):
                            size = min(PIECE, run - left)
                            start = begin + left
                            out = target(dx, start, size, buffer)
                            x_run, dy_run = x[start : start + size], dy[start : start + size]
                            if by_place:
                                w = weight[place + left : place + left + size]
                                project_run_by(x_run, dy_run, out, high, rstd, shift, w, mean_plain, mean_crossed)
                            else:
                                project_run(x_run, dy_run, out, high, rstd, shift, factor, mean_plain, mean_crossed)
                            flush(dx, start, size, buffer)
        if g.stream:
            fence()

    return runs_backward
