"""The backward kernel of `runs`."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray

from normkit.backends.numba.jit import RECORD, cast, jit, kernel, pointer
from normkit.backends.numba.parts import ADD_PARTS, add_parts
from normkit.backends.numba.run_moments import AHEAD, BLOCK, units_together
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
    if ahead:
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
    if ahead:
        prefetch(x, at + i + ahead)
        prefetch(dy, at + i + ahead)
    p, x_hat = take(dy, at + i, n, zero), fma(take(x, at + i, n, zero) - splat(high), splat(rstd), splat(shift))
    put(dweights, to_weight + i, fma(p, x_hat, take(dweights, to_weight + i, n, zero)), n, zero)
    put(dweights, to_bias + i, p + take(dweights, to_bias + i, n, zero), n, zero)
    g = p * take(weight, place + i, n, zero)
    return ((g - splat(plain)) - x_hat * splat(crossed)) * splat(rstd)


@jit
def backward_by_place(g, chunk, k, x, dy, dx, weight, means, rstds, dweights, zero):
    """dx of the units of a chunk, whose numbers each have their own weight; the gradients of these in one part."""
    rows, length, stride = g.r, g.s, g.k * g.s
    streams = g.stream != 0
    ahead = length if streams else 0  # as in the forward kernel
    n = float(rows * length)
    part_size = max(g.chunk, g.a_period)
    for a in range(chunk * g.chunk, min((chunk + 1) * g.chunk, g.a)):
        base = a * rows * stride + k * length
        place = a % g.a_period * g.a_step + k * g.k_step
        unit = a * g.k + k
        high, rstd = means[unit], rstds[unit]
        to_weight = a // part_size * g.affine_size + place
        to_bias = to_weight + g.affine_parts * g.affine_size
        if a % part_size < g.a_period:  # the first of its part that has these weights
            dweights[to_weight : to_weight + length] = zero
            dweights[to_bias : to_bias + length] = zero
        deviations, plain, crossed = 0.0, 0.0, 0.0
        for at in range(base, base + rows * stride, stride):
            for left in range(0, length, BLOCK):
                width, first_weight = min(BLOCK, length - left), place + left
                d, p, c = products_by(at + left, 1, stride, width, zero, x, dy, high, weight, first_weight)
                deviations += d
                plain += p
                crossed += c
        low, mean_plain, mean_crossed = projection(g, n, deviations, plain, crossed, rstd, zero)
        shift = cast(-low * float(rstd), zero)
        for at in range(base, base + rows * stride, stride):
            here = (x, dy, at, ahead, high, rstd, shift, mean_plain, mean_crossed)
            places = (weight, place, dweights, to_weight, to_bias)
            project_run_by(dx, at, length, streams, zero, *here, *places)


@jit
def projection(g, n, deviations, plain, crossed, rstd, zero):
    """low, and what is taken away from g: its mean, and that of g x_hat. From sums over n numbers."""
    if g.given:
        return 0.0, zero, zero
    low = deviations / n if g.centred else 0.0
    mean_crossed = cast((crossed - low * plain) * float(rstd) / n, zero)
    return low, cast(plain / n, zero) if g.centred else zero, mean_crossed


@jit
def backward_of_units(g, unit, count, x, dy, dx, weight, means, rstds, dweights, sums, factors, zero):
    """dx, and the gradients of weights and biases, of neighbouring units, whose runs or pieces of runs have a weight.

    `sums` is scratch for deviations, and for dy and dy (x - high) of each piece; `factors` for three numbers of a unit.
    """
    rows, length, stride, run, step = g.r, g.s, g.k * g.s, g.s_run, g.s_step
    streams = g.stream != 0
    ahead = count * length if streams else 0  # as in the forward kernel
    a, k = unit // g.k, unit % g.k
    base, pieces = a * rows * stride + k * length, length // run
    deviations, plains, crosseds = sums[:count], sums[count:], sums[count + count * pieces :]
    sums[:] = 0.0
    height = max(1, BLOCK // run)
    for top in range(0, rows, height):
        block = min(height, rows - top)
        for i in range(count):
            high = means[unit + i]
            for piece in range(pieces):
                start, at = base + top * stride + i * length + piece * run, i * pieces + piece
                for left in range(0, run, BLOCK):
                    d, p, c = products(start + left, block, stride, min(BLOCK, run - left), zero, x, dy, high)
                    deviations[i] += d
                    plains[at] += p
                    crosseds[at] += c
    for i in range(count):
        rstd, place = rstds[unit + i], a % g.a_period * g.a_step + (k + i) * g.k_step
        plain, crossed = 0.0, 0.0
        for piece in range(pieces):
            factor = float(weight[place + piece * step])
            plain += factor * plains[i * pieces + piece]
            crossed += factor * crosseds[i * pieces + piece]
        low, mean_plain, mean_crossed = projection(g, float(rows * length), deviations[i], plain, crossed, rstd, zero)
        factors[3 * i], factors[3 * i + 1], factors[3 * i + 2] = (
            cast(-low * float(rstd), zero),
            mean_plain,
            mean_crossed,
        )
        to_weight = a // max(g.chunk, g.a_period) * g.affine_size + place
        to_bias = to_weight + g.affine_parts * g.affine_size
        for piece in range(pieces):
            plain, crossed = plains[i * pieces + piece], crosseds[i * pieces + piece]
            dweights[to_weight + piece * step] = cast((crossed - low * plain) * float(rstd), zero)
            dweights[to_bias + piece * step] = cast(plain, zero)
    if g.dx == 0:
        return
    for row in range(rows):
        for i in range(count):
            high, rstd, place = means[unit + i], rstds[unit + i], a % g.a_period * g.a_step + (k + i) * g.k_step
            shift, mean_plain, mean_crossed = factors[3 * i], factors[3 * i + 1], factors[3 * i + 2]
            for piece in range(pieces):
                start, factor = base + row * stride + i * length + piece * run, weight[place + piece * step]
                there = (x, dy, start, ahead, high, rstd, shift, mean_plain, mean_crossed)
                project_run(dx, start, run, streams, zero, *there, factor)


def backward(storage, compute, by_place):
    """dx, and dweight and dbias by part; `by_place`: each number of a run has its own weight."""

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
            add_parts(g, dweights, compute, part, parts)
        elif by_place:
            tasks = (g.a + g.chunk - 1) // g.chunk * g.k
            for task in range(tasks * part // parts, tasks * (part + 1) // parts):
                chunk, k = task // g.k, task % g.k
                backward_by_place(g, chunk, k, x, dy, dx, weight, means, rstds, dweights, zero)
        else:
            together = units_together(g, 2 * x.itemsize)
            sums, factors = np.empty(together * (1 + 2 * (g.s // g.s_run))), np.empty(3 * together, compute)
            unit, end = g.a * g.k * part // parts, g.a * g.k * (part + 1) // parts
            while unit < end:
                count = min(together, end - unit, g.k - unit % g.k)
                backward_of_units(g, unit, count, x, dy, dx, weight, means, rstds, dweights, sums, factors, zero)
                unit += count
        if g.stream:
            fence()

    return runs_backward
