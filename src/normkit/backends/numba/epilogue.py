"""The epilogue of a normalization, in the pass that writes its result: a residual is added, the sum is clamped.

A ReLU is the clamp between 0 and infinity. Bounds are a pair of values of the compute dtype; where bounds or residual
are None, nothing is compiled for them. A backward kernel computes each result again, from x - mean_hi by the factor and
shift of the forward kernel, to find where a bound was active: factor, shift and bounds are its mask parameters.
"""

from numba import types
from numba.extending import overload

from normkit.backends.numba.affine import weight_offset
from normkit.backends.numba.compile import INLINE, cast, pointer
from normkit.backends.numba.memory import load_masked
from normkit.backends.numba.simd import clamp_vector, fma, mask_between, splat


def bounds_of(g, zero, has_bounds):
    """Return the bounds of a call; None if `has_bounds` is None."""
    raise NotImplementedError("compiled code only")


@overload(bounds_of, jit_options=INLINE)
def _bounds_of(g, zero, has_bounds):
    if has_bounds is types.none:
        return lambda g, zero, has_bounds: None
    return lambda g, zero, has_bounds: (cast(g.lower, zero), cast(g.upper, zero))


def clamp(y, bounds):
    """Clamp a result between the bounds, if there are any."""
    raise NotImplementedError("compiled code only")


@overload(clamp, jit_options=INLINE)
def _clamp(y, bounds):
    if bounds is types.none:
        return lambda y, bounds: y
    return lambda y, bounds: clamp_vector(y, splat(bounds[0]), splat(bounds[1]))


def mask_params(g, stat, weight, rstds, shifts, bounds):
    """Return the mask parameters of a statistic: factor, shift, lower, upper."""
    raise NotImplementedError("compiled code only")


@overload(mask_params, jit_options=INLINE)
def _mask_params(g, stat, weight, rstds, shifts, bounds):
    if bounds is types.none:
        return lambda g, stat, weight, rstds, shifts, bounds: None

    def params(g, stat, weight, rstds, shifts, bounds):
        lower, upper = bounds
        return splat(rstds[stat] * weight[weight_offset(g, stat)]), splat(shifts[stat]), splat(lower), splat(upper)

    return params


def column_mask_params(c, n, zero, table, bounds):
    """Return the mask parameters of n columns, from a table of the factors and shifts of all."""
    raise NotImplementedError("compiled code only")


@overload(column_mask_params, jit_options=INLINE)
def _column_mask_params(c, n, zero, table, bounds):
    if bounds is types.none:
        return lambda c, n, zero, table, bounds: None

    def params(c, n, zero, table, bounds):
        lower, upper = bounds
        factor, shift = load_masked(table, c, n, zero), load_masked(table, table.size // 2 + c, n, zero)
        return factor, shift, splat(lower), splat(upper)

    return params


def relu_backward(dy, d, params):
    """Return the gradient before the clamp: dy, and 0 where a bound was active. d is x - mean_hi."""
    raise NotImplementedError("compiled code only")


@overload(relu_backward, jit_options=INLINE)
def _relu_backward(dy, d, params):
    if params is types.none:
        return lambda dy, d, params: dy

    def masked(dy, d, params):
        factor, shift, lower, upper = params
        return mask_between(dy, fma(d, factor, shift), lower, upper)

    return masked


def residual_of(g, storage, has_residual):
    """Return a pointer to the residual of a call; None if `has_residual` is None."""
    raise NotImplementedError("compiled code only")


@overload(residual_of, jit_options=INLINE)
def _residual_of(g, storage, has_residual):
    if has_residual is types.none:
        return lambda g, storage, has_residual: None
    return lambda g, storage, has_residual: pointer(g.residual, storage)


def add_residual(y, residual, offset, n, zero):
    """Add to n results the elements of the residual at their offset, if there is one."""
    raise NotImplementedError("compiled code only")


@overload(add_residual, jit_options=INLINE)
def _add_residual(y, residual, offset, n, zero):
    if residual is types.none:
        return lambda y, residual, offset, n, zero: y
    return lambda y, residual, offset, n, zero: y + load_masked(residual, offset, n, zero)
