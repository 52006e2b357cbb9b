"""The backward kernel of `runs`."""

from collections.abc import Callable
from typing import Any

import numpy as np

from normkit.backends.numba.compile import cast, inline, jit, kernel, pointer, record
from normkit.backends.numba.epilogue import bounds_of, gate_of, pass_between
from normkit.backends.numba.memory import fence, prefetch, put, take
from normkit.backends.numba.output import writer
from normkit.backends.numba.record import REDUCE_PARTIALS
from normkit.backends.numba.runs.moments import BLOCK, distance
from normkit.backends.numba.scratch import fill, free, numbers
from normkit.backends.numba.simd import first, fma, in_any_order, lanes, splat, total, with_plain_nan
from normkit.backends.numba.units import group_of, passes, place_of, units_together
from normkit.backends.numba.weight_grads import add_parts, gradients_of


def _summing(value: Callable[..., Any]) -> Callable[..., Any]:
    """A loop that sums x - high, g and their product over `rows` runs of `size` numbers, `stride` apart."""

    @jit
    def sums(start, rows, stride, size, zero, x, dy, *operands):
        step, none = lanes(zero), splat(zero)
        deviations, plain, crossed = none, none, none
        deviations_2, plain_2, crossed_2 = none, none, none
        ahead = distance(size, stride)
        whole = size - size % (2 * step)
        rest = min(step, size - whole)
        rest_2 = size - whole - rest
        for at in range(start, start + rows * stride, stride):
            for i in range(0, whole, 2 * step):
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
            if rest:
                d, p = value(at, whole, rest, zero, x, dy, *operands)
                deviations += first(x, d, rest)
                plain += p
                crossed = fma(p, d, crossed)
            if rest_2:
                d, p = value(at, whole + step, rest_2, zero, x, dy, *operands)
                deviations_2 += first(x, d, rest_2)
                plain_2 += p
                crossed_2 = fma(p, d, crossed_2)
        return (
            float(total(deviations + deviations_2)),
            float(total(plain + plain_2)),
            float(total(crossed + crossed_2)),
        )

    return sums


@jit
def products(at, i, n, zero, x, dy, high, gate):
    """X - high and dy, where no bound holds the result."""
    d = take(x, at + i, n, zero) - splat(high)
    return d, pass_between(take(dy, at + i, n, zero), d, gate)


@jit
def products_by(at, i, n, zero, x, dy, high, weight, place):
    """X - high and g = dy · weight, a weight for each number."""
    g = take(dy, at + i, n, zero) * take(weight, place + i, n, zero)
    return take(x, at + i, n, zero) - splat(high), g


sum_products = _summing(products)
sum_products_by = _summing(products_by)


@inline
def projections(run, x, dy, ahead, coefficients, g, unit, weights, rstds, shifts, bounds):
    """high, rstd, shift, the means of g and of g x_hat, the weight of a piece, and its gate."""
    at = 6 * run
    high, rstd, shift = coefficients[at], coefficients[at + 1], coefficients[at + 2]
    plain, crossed, weight = coefficients[at + 3], coefficients[at + 4], coefficients[at + 5]
    gate = gate_of(g, unit + run, weights, rstds, shifts, bounds)
    scaling = with_plain_nan(x, high), with_plain_nan(x, rstd), with_plain_nan(x, shift)
    return *scaling, with_plain_nan(x, plain), with_plain_nan(x, crossed), with_plain_nan(x, weight), gate


@jit
def project(at, i, n, zero, known, x, dy, ahead, coefficients, *told):
    """Dx of numbers with one weight."""
    high, rstd, shift, plain, crossed, weight, gate = known
    if ahead:
        prefetch(x, at + i + ahead)
        prefetch(dy, at + i + ahead)
    d, p = products(at, i, n, zero, x, dy, high, gate)
    x_hat = fma(d, splat(rstd), splat(shift))
    return fma(p, splat(weight), fma(x_hat, splat(crossed), splat(plain)))


@inline
def projections_by(run, g, part, unit, x, dy, ahead, means, rstds, coefficients, weight, dweights):
    """high, rstd, shift, the means of g and of g x_hat of a unit, and where its weights and their gradients begin."""
    at, of, rstd = 3 * run, unit + run, rstds[unit + run]
    shift = cast(coefficients[at], rstd)
    plain, crossed = cast(coefficients[at + 1], rstd) * -rstd, cast(coefficients[at + 2], rstd) * -rstd
    place = place_of(g, of)
    to_weight, to_bias = gradients_of(g, part, place)
    return means[of], rstd, shift, plain, crossed, place, to_weight, to_bias


@jit
def project_by(at, i, n, zero, known, g, part, unit, x, dy, ahead, means, rstds, coefficients, weight, dweights):
    """Dx of numbers with a weight each; adds dy · x_hat and dy to the gradients of weights and biases."""
    high, rstd, shift, plain, crossed, place, to_weight, to_bias = known
    if ahead:
        prefetch(x, at + i + ahead)
        prefetch(dy, at + i + ahead)
    p, x_hat = take(dy, at + i, n, zero), fma(take(x, at + i, n, zero) - splat(high), splat(rstd), splat(shift))
    put(dweights, to_weight + i, fma(p, x_hat, take(dweights, to_weight + i, n, zero)), n, zero)
    put(dweights, to_bias + i, p + take(dweights, to_bias + i, n, zero), n, zero)
    g = p * take(weight, place + i, n, zero)
    return fma(g, splat(rstd), fma(x_hat, splat(crossed), splat(plain)))


write_pieces = writer(projections, project, False)
write_units = writer(projections_by, project_by, True)


@jit
def projection(g, n, deviations, plain, crossed, rstd, zero):
    """low, and what is taken away from g: its mean, and that of g x_hat. From sums over n numbers."""
    if g.precomputed:
        return 0.0, zero, zero
    low = deviations / n if g.subtract_mean else 0.0
    mean_crossed = cast((crossed - low * plain) * float(rstd) / n, zero)
    return low, cast(plain / n, zero) if g.subtract_mean else zero, mean_crossed


@jit
def sum_units(g, part, since, unit, count, base, x, dy, weight, means, rstds, dweights, coefficients, zero):
    """Shift and means of g and of g x_hat of neighbouring units whose numbers each have their own weight.

    The first of them are so many units into their part: `since`.
    """
    length, stride, one = g.s, g.k * g.s, np.int64(1)
    for i in range(count):
        start, high, place = base + i * length, means[unit + i], place_of(g, unit + i)
        deviations, plain, crossed = 0.0, 0.0, 0.0
        for at in range(start, start + g.r * stride, stride):
            for left in range(0, length, BLOCK):
                width, first_weight = min(BLOCK, length - left), place + left
                d, p, c = sum_products_by(at + left, one, stride, width, zero, x, dy, high, weight, first_weight)
                deviations += d
                plain += p
                crossed += c
        coefficients[3 * i], coefficients[3 * i + 1], coefficients[3 * i + 2] = deviations, plain, crossed
        if since + i < g.a_period:  # the first of its part that has these weights
            for to in gradients_of(g, part, place):
                for j in range(to, to + length):
                    dweights[j] = zero
    for i in range(count):  # the processor sums the next unit before the sums of one are complete
        rstd, at = rstds[unit + i], 3 * i
        sums = coefficients[at], coefficients[at + 1], coefficients[at + 2]
        low, plain_mean, crossed_mean = projection(g, float(g.r * length), *sums, rstd, zero)
        coefficients[at], coefficients[at + 1], coefficients[at + 2] = -low * float(rstd), plain_mean, crossed_mean


@jit
def sum_pieces(g, unit, count, base, x, dy, means, deviations, plains, crosseds, zero, *gating):
    """Sums of x - high of each of some neighbouring units, and of dy and dy (x - high) of each of their pieces."""
    rows, run, stride, pieces = g.r, g.s_run, g.k * g.s, g.s // g.s_run
    height = max(1, BLOCK // run)
    for top in range(0, rows, height):
        block, start, at = min(height, rows - top), base + top * stride, 0
        for i in range(count):
            high, gate = means[unit + i], gate_of(g, unit + i, *gating)
            for _ in range(pieces):
                for left in range(0, run, BLOCK):
                    width = min(BLOCK, run - left)
                    d, p, c = sum_products(start + left, block, stride, width, zero, x, dy, high, gate)
                    deviations[i] += d
                    plains[at] += p
                    crosseds[at] += c
                start += run
                at += 1


@jit
def fill_coefficients(g, unit, count, weight, means, rstds, deviations, plains, crosseds, dweights, coefficients, zero):
    """What `projections` gives of each piece; writes dweight and dbias of their part."""
    pieces, n = g.s // g.s_run, float(g.r * g.s)
    for i in range(count):
        begin, rstd, place = i * pieces, rstds[unit + i], place_of(g, unit + i)
        plain, crossed = 0.0, 0.0
        for piece in range(pieces):
            factor = float(weight[place + piece * g.s_step])
            plain += factor * plains[begin + piece]
            crossed += factor * crosseds[begin + piece]
        low, plain_mean, crossed_mean = projection(g, n, deviations[i], plain, crossed, rstd, zero)
        to_weight, to_bias = gradients_of(g, (unit + i) // g.k // max(g.chunk, g.a_period), place)
        for piece in range(pieces):
            at, step = begin + piece, piece * g.s_step
            dweights[to_weight + step] = cast((crosseds[at] - low * plains[at]) * float(rstd), zero)
            dweights[to_bias + step] = cast(plains[at], zero)
            to = 6 * at
            coefficients[to], coefficients[to + 1] = means[unit + i], rstd
            coefficients[to + 2], coefficients[to + 3] = cast(-low * float(rstd), zero), plain_mean * -rstd
            coefficients[to + 4], coefficients[to + 5] = crossed_mean * -rstd, weight[place + step] * rstd


def make_kernel(storage, compute, by_place, clamped):
    """dx, and dweight and dbias by part; `by_place`: each number of a run has its own weight."""
    itemsize, clamped = np.dtype(storage).itemsize, clamped or None  # a type each: it decides what is compiled
    stored = storage if by_place else in_any_order(storage)

    @kernel
    def runs_backward(data, part, parts, phase):
        g = record(data)
        x = pointer(g.x, stored)
        dy = pointer(g.dy, stored)
        dx = pointer(g.dx, stored)
        weight = pointer(g.weight, compute)
        means = pointer(g.mean, compute)
        rstds = pointer(g.rstd, compute)
        dweights = pointer(g.dweights, compute)
        zero, streams = compute(0), g.stream != 0
        gating = weight, rstds, pointer(g.shift, compute), bounds_of(g, zero, clamped)
        together, stride, pieces = units_together(g, np.int64(2 * itemsize)), g.k * g.s, g.s // g.s_run
        if phase == REDUCE_PARTIALS:
            add_parts(g, compute, part, parts)
        elif by_place:
            coefficients = numbers(3 * together, 0.0)
            chunks = (g.a + g.chunk - 1) // g.chunk
            for task in range(chunks * g.k * part // parts, chunks * g.k * (part + 1) // parts):
                chunk, k = task // g.k, task % g.k
                begin, end = chunk * g.chunk, min((chunk + 1) * g.chunk, g.a)
                a = begin
                while a < end:
                    unit = a * g.k + k  # whose neighbour is that of the next a where there is one k
                    count, base = group_of(g, unit, end if g.k == 1 else unit + 1, together)
                    group = (g, chunk, a - begin, unit, count, base)
                    sum_units(*group, x, dy, weight, means, rstds, dweights, coefficients, zero)
                    _, (_, near, ahead) = passes(g, count, np.int64(2 * itemsize))  # there is one row
                    there = (g, chunk, unit, x, dy, ahead, means, rstds, coefficients, weight, dweights)
                    write_units(dx, base, near, stride, count, g.s, streams, zero, *there)
                    a += count
            free(coefficients)
        else:
            deviations = numbers(together, 0.0)
            plains, crosseds = numbers(together * pieces, 0.0), numbers(together * pieces, 0.0)
            coefficients = numbers(6 * together * pieces, zero)
            unit, end = g.a * g.k * part // parts, g.a * g.k * (part + 1) // parts
            while unit < end:
                count, base = group_of(g, unit, end, together)
                sums = (deviations, plains, crosseds)
                for some in sums:
                    fill(some, 0.0)
                sum_pieces(g, unit, count, base, x, dy, means, *sums, zero, *gating)
                fill_coefficients(g, unit, count, weight, means, rstds, *sums, dweights, coefficients, zero)
                if g.dx != 0:
                    for last, rows, ahead in passes(g, count, np.int64(2 * itemsize)):
                        top, here = base + last * stride, (x, dy, ahead, coefficients, g, unit, *gating)
                        if rows:
                            write_pieces(dx, top, rows, -stride, count * pieces, g.s_run, streams, zero, *here)
                unit += count
            for some in (deviations, plains, crosseds):
                free(some)
            free(coefficients)
        if streams:
            fence()

    return runs_backward
