"""The forward kernel of `runs`."""

import numpy as np
from numba import carray

from normkit.backends.numba.jit import (
    PIECE,
    RECORD,
    cast,
    fence,
    flush,
    jit,
    kernel,
    load,
    pointer,
    store,
    target,
)
from normkit.backends.numba.run_moments import moments


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
