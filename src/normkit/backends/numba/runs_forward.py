"""The forward kernel of `runs`."""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import RECORD, cast, jit, kernel, pointer
from normkit.backends.numba.run_moments import moments, units_together
from normkit.backends.numba.running import move_running
from normkit.backends.numba.simd import fence, fma, prefetch, splat, take
from normkit.backends.numba.streams import writer


@writer
@jit
def scale_run(i, n, zero, x, start, ahead, high, factor, shift):
    """(x - high) · factor + shift."""
    if ahead:
        prefetch(x, start + i + ahead)
    return fma(take(x, start + i, n, zero) - splat(high), splat(factor), splat(shift))


@writer
@jit
def scale_run_by(i, n, zero, x, start, ahead, high, rstd, shift, weight, bias, place):
    """((x - high) · rstd + shift) · weight + bias, a weight for each number."""
    if ahead:
        prefetch(x, start + i + ahead)
    x_hat = fma(take(x, start + i, n, zero) - splat(high), splat(rstd), splat(shift))
    return fma(x_hat, take(weight, place + i, n, zero), take(bias, place + i, n, zero))


@jit
def write_run(g, x, y, at, weight, bias, place, high, low, rstd, together, zero):
    """The result of a run that has one weight, or one for each of its pieces."""
    run, streams = g.s_run, g.stream != 0
    ahead = together * g.s if streams else 0  # the next units come from memory while these go there
    for piece in range(g.s // run):
        factor, start = rstd * weight[place + piece * g.s_step], at + piece * run
        shift = bias[place + piece * g.s_step] - low * factor
        scale_run(y, start, run, streams, zero, x, start, ahead, high, factor, shift)


@jit
def write_run_by(g, x, y, at, weight, bias, place, high, low, rstd, together, zero):
    """The result of a run whose numbers each have their own weight."""
    streams = g.stream != 0
    ahead = together * g.s if streams else 0
    scale_run_by(y, at, g.s, streams, zero, x, at, ahead, high, rstd, -low * rstd, weight, bias, place)


def forward(storage, compute, by_place):
    """Statistics (unless given) and the normalized result; `by_place`: each number of a run has its own weight."""

    @kernel
    def runs_forward(data, part, parts, phase):
        g = carray(data, 1, RECORD)[0]
        size = g.a * g.r * g.k * g.s
        x = carray(pointer(g.x), size, storage)
        y = carray(pointer(g.y), size, storage)
        weight = carray(pointer(g.weight), g.affine_size, compute)
        bias = carray(pointer(g.bias), g.affine_size, compute)
        means = carray(pointer(g.mean), g.a * g.k, compute)
        variances = carray(pointer(g.var), g.a * g.k, compute)
        rstds = carray(pointer(g.rstd), g.a * g.k, compute)
        running_means = carray(pointer(g.running_mean), g.k, compute)
        running_variances = carray(pointer(g.running_var), g.k, compute)
        zero = compute(0)
        rows, length, stride = g.r, g.s, g.k * g.s
        if g.given:  # in the order of the memory
            runs = g.a * rows * g.k
            begin, end = runs * part // parts, runs * (part + 1) // parts
            for unit in range(g.a * g.k) if rows > 1 else range(begin, end):  # all, as every thread meets all of them
                rstds[unit] = cast(1.0 / np.sqrt(float(variances[unit]) + g.eps), zero)
            for i in range(begin, end):
                a, k = i // (rows * g.k), i % g.k
                unit, place = a * g.k + k, a % g.a_period * g.a_step + k * g.k_step
                rest = (place, means[unit], zero, rstds[unit], 1, zero)
                if by_place:
                    write_run_by(g, x, y, i * length, weight, bias, *rest)
                else:
                    write_run(g, x, y, i * length, weight, bias, *rest)
        else:
            together = units_together(g, x.itemsize)
            some_means, some_variances = np.empty(together), np.empty(together)
            units = g.a * g.k
            unit, end = units * part // parts, units * (part + 1) // parts
            while unit < end:
                a, k = unit // g.k, unit % g.k
                count = min(together, end - unit, g.k - k)
                base = a * rows * stride + k * length
                moments(x, base, rows, stride, length, count, g.centred != 0, some_means, some_variances, zero)
                for i in range(count):
                    mean, var = some_means[i], some_variances[i]
                    means[unit + i], variances[unit + i] = cast(mean, zero), cast(var, zero)
                    rstds[unit + i] = cast(1.0 / np.sqrt(var + g.eps), zero)
                    move_running(g, running_means, running_variances, k + i, mean, var, zero)
                for row in range(rows):
                    for i in range(count):
                        high, rstd = means[unit + i], rstds[unit + i]
                        low = cast(some_means[i] - float(high), zero)
                        place = a % g.a_period * g.a_step + (k + i) * g.k_step
                        at = base + row * stride + i * length
                        if by_place:
                            write_run_by(g, x, y, at, weight, bias, place, high, low, rstd, count, zero)
                        else:
                            write_run(g, x, y, at, weight, bias, place, high, low, rstd, count, zero)
                unit += count
        if g.stream:
            fence()

    return runs_forward
