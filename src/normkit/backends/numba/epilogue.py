"""Results that are kept between two bounds as they are written: an activation such as ReLU, in the same pass.

Bounds are a pair of numbers of the type of computation. Where they are None nothing is compiled of all this. A gate is
what a backward kernel tells by whether a bound holds a result: factor and shift, by which the forward kernel has made
it of x - high, and the bounds.
"""

from numba import types
from numba.extending import overload

from normkit.backends.numba.compile import INLINE, cast, pointer
from normkit.backends.numba.memory import take
from normkit.backends.numba.simd import between, clamp, fma, splat
from normkit.backends.numba.units import place_of


def bounds_of(g, zero, clamped):
    """The bounds of a call; None if `clamped` is None."""
    raise NotImplementedError("compiled code only")


@overload(bounds_of, jit_options=INLINE)
def _bounds_of(g, zero, clamped):
    if clamped is types.none:
        return lambda g, zero, clamped: None
    return lambda g, zero, clamped: (cast(g.lower, zero), cast(g.upper, zero))


def keep_between(y, bounds):
    """A result, or the bound that holds it."""
    raise NotImplementedError("compiled code only")


@overload(keep_between, jit_options=INLINE)
def _keep_between(y, bounds):
    if bounds is types.none:
        return lambda y, bounds: y
    return lambda y, bounds: clamp(y, splat(bounds[0]), splat(bounds[1]))


def gate_of(g, unit, weight, rstds, shifts, bounds):
    """The gate of a unit."""
    raise NotImplementedError("compiled code only")


@overload(gate_of, jit_options=INLINE)
def _gate_of(g, unit, weight, rstds, shifts, bounds):
    if bounds is types.none:
        return lambda g, unit, weight, rstds, shifts, bounds: None

    def gate(g, unit, weight, rstds, shifts, bounds):
        low, high = bounds
        return splat(rstds[unit] * weight[place_of(g, unit)]), splat(shifts[unit]), splat(low), splat(high)

    return gate


def gates_of(c, n, zero, table, bounds):
    """The gates of n columns, from a table of factors and shifts of all."""
    raise NotImplementedError("compiled code only")


@overload(gates_of, jit_options=INLINE)
def _gates_of(c, n, zero, table, bounds):
    if bounds is types.none:
        return lambda c, n, zero, table, bounds: None

    def gates(c, n, zero, table, bounds):
        low, high = bounds
        return take(table, c, n, zero), take(table, table.size // 2 + c, n, zero), splat(low), splat(high)

    return gates


def pass_between(dy, d, gate):
    """The gradient of results before they were kept between bounds: dy, and 0 where a bound holds. d is x - high."""
    raise NotImplementedError("compiled code only")


@overload(pass_between, jit_options=INLINE)
def _pass_between(dy, d, gate):
    if gate is types.none:
        return lambda dy, d, gate: dy

    def passed(dy, d, gate):
        factor, shift, low, high = gate
        return between(dy, fma(d, factor, shift), low, high)

    return passed


def residual_of(g, storage, added):
    """The numbers that a call adds; None if `added` is None."""
    raise NotImplementedError("compiled code only")


@overload(residual_of, jit_options=INLINE)
def _residual_of(g, storage, added):
    if added is types.none:
        return lambda g, storage, added: None
    return lambda g, storage, added: pointer(g.residual, storage)


def plus(y, residual, at, n, zero):
    """A result and what is added to it: n numbers, which lie where those of the result go."""
    raise NotImplementedError("compiled code only")


@overload(plus, jit_options=INLINE)
def _plus(y, residual, at, n, zero):
    if residual is types.none:
        return lambda y, residual, at, n, zero: y
    return lambda y, residual, at, n, zero: y + take(residual, at, n, zero)
