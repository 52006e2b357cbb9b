"""What is added to a result as it is written: the other way around a block, in the same pass.

Where it is None nothing is compiled of all this.
"""

from numba import types
from numba.extending import overload

from normkit.backends.numba.jit import INLINE, pointer
from normkit.backends.numba.memory import take


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
