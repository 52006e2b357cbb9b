"""The sums over runs that the backward pass needs: of d = x - mean_hi, of g = dy · weight, and of g · d."""

from collections.abc import Callable
from typing import Any

from normkit.backends.numba.compile import jit
from normkit.backends.numba.epilogue import relu_backward
from normkit.backends.numba.memory import load_masked, prefetch
from normkit.backends.numba.runs.moments import prefetch_distance
from normkit.backends.numba.simd import fma, lanes, mask_tail, reduce_add, splat


def _summing(value: Callable[..., Any]) -> Callable[..., Any]:
    """Return a loop that sums d, g and g · d over `rows` runs of `size` elements, `stride` apart."""

    @jit
    def sums(start, rows, stride, size, zero, x, dy, *operands):
        step, none = lanes(zero), splat(zero)
        d_sum, g_sum, gd_sum = none, none, none
        d_sum_2, g_sum_2, gd_sum_2 = none, none, none
        ahead = prefetch_distance(size, stride)
        whole = size - size % (2 * step)
        rest = min(step, size - whole)
        rest_2 = size - whole - rest
        for at in range(start, start + rows * stride, stride):
            for i in range(0, whole, 2 * step):
                for tensor in (x, dy):
                    prefetch(tensor, at + i + ahead)
                    prefetch(tensor, at + i + ahead + step)
                d, g = value(at, i, step, zero, x, dy, *operands)
                d_2, g_2 = value(at, i + step, step, zero, x, dy, *operands)
                d_sum += d
                d_sum_2 += d_2
                g_sum += g
                g_sum_2 += g_2
                gd_sum, gd_sum_2 = fma(g, d, gd_sum), fma(g_2, d_2, gd_sum_2)
            if rest:
                d, g = value(at, whole, rest, zero, x, dy, *operands)
                d_sum += mask_tail(x, d, rest)
                g_sum += g
                gd_sum = fma(g, d, gd_sum)
            if rest_2:
                d, g = value(at, whole + step, rest_2, zero, x, dy, *operands)
                d_sum_2 += mask_tail(x, d, rest_2)
                g_sum_2 += g
                gd_sum_2 = fma(g, d, gd_sum_2)
        return (
            float(reduce_add(d_sum + d_sum_2)),
            float(reduce_add(g_sum + g_sum_2)),
            float(reduce_add(gd_sum + gd_sum_2)),
        )

    return sums


@jit
def masked_terms(start, i, n, zero, x, dy, mean_hi, params):
    """Return d, and dy where no bound was active."""
    d = load_masked(x, start + i, n, zero) - splat(mean_hi)
    return d, relu_backward(load_masked(dy, start + i, n, zero), d, params)


@jit
def weighted_terms(start, i, n, zero, x, dy, mean_hi, weight, offset):
    """Return d, and g with a weight for each element."""
    g = load_masked(dy, start + i, n, zero) * load_masked(weight, offset + i, n, zero)
    return load_masked(x, start + i, n, zero) - splat(mean_hi), g


sum_masked_terms = _summing(masked_terms)
sum_weighted_terms = _summing(weighted_terms)
