"""Masked kernels: batch, instance and group norm of contiguous (N, C, L), where positions have weights.

A statistic is taken over `outer` pieces, each of `spans` neighbouring rows of `size` elements: over one row of each
sample (batch norm), over one row (instance norm), or over the rows of a group. All rows of a sample share one row of
weights. Where a weight is 0, nothing that is read has a part in any sum, and 0 is written: elements are selected, never
multiplied by 0.
"""

from normkit.backends.numba.masked.launch import (
    MARGIN,
    BackwardPointers,
    ForwardPointers,
    Geometry,
    Launch,
    launch,
    run_backward,
    run_forward,
)

__all__ = [
    "MARGIN",
    "BackwardPointers",
    "ForwardPointers",
    "Geometry",
    "Launch",
    "launch",
    "run_backward",
    "run_forward",
]
