"""The forward kernel of `runs`."""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import RECORD, cast, jit, kernel, pointer
from normkit.backends.numba.run_moments import moments
from normkit.backends.numba.running import move_running
from normkit.backends.numba.simd import fence, fma, prefetch, splat, take
from normkit.backends.numba.streams import writer


@writer
@jit
def scale_run(i, n, zero, x, start, ahead, high, factor, shift):
    """(x - high) · factor + shift."""
    prefetch(x, start + i + ahead)
    return fma(take(x, start + i, n, zero) - splat(high), splat(factor), splat(shift))


@writer
@jit
def scale_run_by(i, n, zero, x, start, ahead, high, rstd, shift, weight, bias, place):
    """((x - high) · rstd + shift) · weight + bias, a weight for each number."""
    prefetch(x, start + i + ahead)
    x_hat = fma(take(x, start + i, n, zero) - splat(high), splat(rstd), splat(shift))
    return fma(x_hat, take(weight, place + i, n, zero), take(bias, place + i, n, zero))


def forward(storage, compute):
    """Statistics (unless given) and the normalized result."""

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
        streams = g.stream != 0
        rows, length, stride = g.r, g.s, g.k * g.s
        by_place = g.s_step != 0 and g.s_run == 1  # each number of a run has its own weight
        run, step = (length, 0) if by_place else (g.s_run, g.s_step)
        ahead = length if streams else 0  # the next unit comes from memory while this one goes there
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
            rstds[unit] = rstd
            if not g.given:
                means[unit] = high
                variances[unit] = cast(var, zero)
                move_running(g, running_means, running_variances, k, mean, var, zero)
            place = a % g.a_period * g.a_step + k * g.k_step
            for at in range(base, base + rows * stride, stride):
                if by_place:
                    operands = (x, at, ahead, high, rstd, -low * rstd, weight, bias, place)
                    scale_run_by(y, at, length, streams, zero, *operands)
                else:
                    for piece in range(length // run):
                        factor, start = rstd * weight[place + piece * step], at + piece * run
                        shift = bias[place + piece * step] - low * factor
                        scale_run(y, start, run, streams, zero, x, start, ahead, high, factor, shift)
        if streams:
            fence()

    return runs_forward
