"""Weights and biases: where those of a statistic lie."""

import numpy as np

from normkit.backends.numba.compile import inline


@inline
def weight_offset(g, stat):
    """Return the offset of the first weight of a statistic."""
    if g.k * g.a_period == 1:  # a division takes as long as ten vectors
        return np.int64(0)
    if g.k == 1:
        return stat % g.a_period * g.a_step
    if g.a_period == 1:
        return stat % g.k * g.k_step
    return stat // g.k % g.a_period * g.a_step + stat % g.k * g.k_step
