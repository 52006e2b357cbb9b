"""The backward kernel of `runs`."""

from collections.abc import Callable
from typing import Any

from numba import carray

from normkit.backends.numba.jit import RECORD, cast, jit, kernel, pointer
from normkit.backends.numba.parts import ADD_PARTS, add_parts
from normkit.backends.numba.run_moments import AHEAD, BLOCK
from normkit.backends.numba.simd import (
    fence,
    first,
    fma,
    lanes,
    prefetch,
    put,
    splat,
    take,
    total,
)
from normkit.backends.numba.streams import writer


def _summing(value: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that sums x - high, g and their product over `rows` runs of `size` numbers, `stride` apart."""

    @jit
    def sums(start, rows, stride, size, zero, x, dy, *operands):
        step, none = lanes(zero), splat(zero)
        deviations, plain, crossed = none, none, none
        deviations_2, plain_2, crossed_2 = none, none, none
        ahead = AHEAD // size * stride
        for at in range(start, start + rows * stride, stride):
            i = 0
            while i + 2 * step <= size:
                for tensor in (x, dy):
                    prefetch(tensor, at + i + ahead)
                    prefetch(tensor, at + i + ahead + step)
                d, p = value(at, i, step, zero, x, dy, *operands)
                d_2, p_2 = value(at, i + step, step, zero, x, dy, *operands)
                deviations += d
                deviations_2 += d_2
                plain += p
                plain_2 += p_2
                crossed, crossed_2 = fma(p, d, crossed), fma(p_2, d_2, crossed_2)
                i += 2 * step
            while i < size:
                rest = min(step, size - i)
                d, p = value(at, i, rest, zero, x, dy, *operands)
                d = first(d, rest)
                deviations += d
                plain += p
                crossed = fma(p, d, crossed)
                i += step
        return (
            float(total(deviations + deviations_2)),
            float(total(plain + plain_2)),
            float(total(crossed + crossed_2)),
        )

    return sums


@_summing
@jit
def products(at, i, n, zero, x, dy, high):
    """x - high and dy."""
    return take(x, at + i, n, zero) - splat(high), take(dy, at + i, n, zero)


@_summing
@jit
def products_by(at, i, n, zero, x, dy, high, weight, place):
    """x - high and g = dy · weight, a weight for each number."""
    g = take(dy, at + i, n, zero) * take(weight, place + i, n, zero)
    return take(x, at + i, n, zero) - splat(high), g


@jit
def project(d, g, rstd, shift, plain, crossed):
    """dx, from x - high and g."""
    return ((g - splat(plain)) - fma(d, splat(rstd), splat(shift)) * splat(crossed)) * splat(rstd)


@writer
@jit
def project_run(i, n, zero, x, dy, at, ahead, high, rstd, shift, plain, crossed, weight):
    """dx of a run with one weight."""
    prefetch(x, at + i + ahead)
    prefetch(dy, at + i + ahead)
    g = take(dy, at + i, n, zero) * splat(weight)
    return project(take(x, at + i, n, zero) - splat(high), g, rstd, shift, plain, crossed)


@writer
@jit
def project_run_by(
    i, n, zero, x, dy, at, ahead, high, rstd, shift, plain, crossed, weight, place, dweights, to_weight, to_bias
):
    """dx of a run with a weight for each number; adds dy · x_hat and dy to the gradients of weights and biases."""
    prefetch(x, at + i + ahead)
    prefetch(dy, at + i + ahead)
    p, x_hat = take(dy, at + i, n, zero), fma(take(x, at + i, n, zero) - splat(high), splat(rstd), splat(shift))
    put(dweights, to_weight + i, fma(p, x_hat, take(dweights, to_weight + i, n, zero)), n, zero)
    put(dweights, to_bias + i, p + take(dweights, to_bias + i, n, zero), n, zero)
    g = p * take(weight, place + i, n, zero)
    return ((g - splat(plain)) - x_hat * splat(crossed)) * splat(rstd)


def backward(storage, compute):
    """dx, and dweight and dbias by part."""

    @kernel
    def runs_backward(data, part, parts, phase):
        g = carray(data, 1, RECORD)[0]
        size = g.a * g.r * g.k * g.s
        x = carray(pointer(g.x), size, storage)
        dy = carray(pointer(g.dy), size, storage)
        dx = carray(pointer(g.dx), size, storage)
        weight = carray(pointer(g.weight), g.affine_size, compute)
        means = carray(pointer(g.mean), g.a * g.k, compute)
        rstds = carray(pointer(g.rstd), g.a * g.k, compute)
        dweights = carray(pointer(g.dweights), 2 * g.affine_parts * g.affine_size, compute)
        zero = compute(0)
        if phase == ADD_PARTS:
            dweight = carray(pointer(g.dweight), g.affine_size, compute)
            dbias = carray(pointer(g.dbias), g.affine_size, compute)
            add_parts(g, dweights, dweight, dbias, part, parts, zero)
            return
        streams = g.stream != 0
        rows, length, stride = g.r, g.s, g.k * g.s
        by_place = g.s_step != 0 and g.s_run == 1
        run, step = (length, 0) if by_place else (g.s_run, g.s_step)
        height = max(1, BLOCK // run)
        ahead = length if streams else 0  # as in the forward kernel
        n = float(rows * length)
        part_size = max(g.chunk, g.a_period)  # units whose gradients of weight and bias lie in one part
        chunks = (g.a + g.chunk - 1) // g.chunk
        for task in range(chunks * g.k * part // parts, chunks * g.k * (part + 1) // parts):
            chunk, k = task // g.k, task % g.k
            for a in range(chunk * g.chunk, min((chunk + 1) * g.chunk, g.a)):
                base = a * rows * stride + k * length
                place = a % g.a_period * g.a_step + k * g.k_step
                unit = a * g.k + k
                high, rstd = means[unit], rstds[unit]
                to_weight = a // part_size * g.affine_size + place
                to_bias = to_weight + g.affine_parts * g.affine_size
                deviations, plain, crossed = 0.0, 0.0, 0.0
                if by_place:
                    for at in range(base, base + rows * stride, stride):
                        for left in range(0, length, BLOCK):
                            width, first_weight = min(BLOCK, length - left), place + left
                            d, p, c = products_by(at + left, 1, stride, width, zero, x, dy, high, weight, first_weight)
                            deviations += d
                            plain += p
                            crossed += c
                else:
                    for piece in range(length // run):
                        piece_plain, piece_crossed = 0.0, 0.0
                        for top in range(0, rows, height):
                            start, block = base + piece * run + top * stride, min(height, rows - top)
                            for left in range(0, run, BLOCK):
                                width = min(BLOCK, run - left)
                                d, p, c = products(start + left, block, stride, width, zero, x, dy, high)
                                deviations += d
                                piece_plain += p
                                piece_crossed += c
                        factor = float(weight[place + piece * step])
                        plain += factor * piece_plain
                        crossed += factor * piece_crossed
                        dweights[to_weight + piece * step] = cast(piece_crossed, zero)
                        dweights[to_bias + piece * step] = cast(piece_plain, zero)
                low = deviations / n if g.centred and not g.given else 0.0
                shift = cast(-low * float(rstd), zero)
                if by_place:
                    if a % part_size < g.a_period:  # the first of its part that has these weights
                        dweights[to_weight : to_weight + length] = zero
                        dweights[to_bias : to_bias + length] = zero
                else:
                    for piece in range(length // run):
                        at = to_weight + piece * step
                        rest = low * float(dweights[to_bias + piece * step])
                        dweights[at] = cast((float(dweights[at]) - rest) * float(rstd), zero)
                if g.dx == 0:
                    continue
                mean_plain, mean_crossed = zero, zero
                if not g.given:
                    mean_crossed = cast((crossed - low * plain) * float(rstd) / n, zero)
                    if g.centred:
                        mean_plain = cast(plain / n, zero)
                for at in range(base, base + rows * stride, stride):
                    if by_place:
                        here = (x, dy, at, ahead, high, rstd, shift, mean_plain, mean_crossed)
                        places = (weight, place, dweights, to_weight, to_bias)
                        project_run_by(dx, at, length, streams, zero, *here, *places)
                    else:
                        for piece in range(length // run):
                            start, factor = at + piece * run, weight[place + piece * step]
                            there = (x, dy, start, ahead, high, rstd, shift, mean_plain, mean_crossed)
                            project_run(dx, start, run, streams, zero, *there, factor)
        if streams:
            fence()

    return runs_backward
