"""The backward kernel of `runs`."""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import (
    PIECE,
    RECORD,
    SHORT,
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
from normkit.backends.numba.run_moments import BLOCK, sum_about


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


@jit
def products_by(x, dy, high, rstd, shift, weight, dweight, dbias, zero):
    """Sums of g = dy * weight and g * x_hat; dy * x_hat and dy are added to dweight and dbias."""
    if x.size >= SHORT:
        return add_and_sum(x, dy, high, rstd, shift, weight, dweight, dbias, zero)
    for i in range(x.size):
        gradient = load(dy, i)
        dbias[i] += gradient
        dweight[i] += gradient * ((load(x, i) - high) * rstd + shift)
    return sum_products(x, dy, high, rstd, shift, weight, zero)


@jit_sum
def sum_products(x, dy, high, rstd, shift, weight, zero):
    plain = zero
    crossed = zero
    for i in range(x.size):
        g = load(dy, i) * weight[i]
        plain += g
        crossed += g * (minus(load(x, i), high) * rstd + shift)
    return plain, crossed


@jit_sum
def add_and_sum(x, dy, high, rstd, shift, weight, dweight, dbias, zero):
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
