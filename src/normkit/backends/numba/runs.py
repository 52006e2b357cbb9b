"""Kernels for long runs: each statistic is taken by one thread, walking along S.

The sums of a block, of x and of its squares, are taken about a number close to its mean (the mean of its beginning; if
that proves to be too far off, a second time about a better one), and blocks are merged in float64 (Chan, Golub &
LeVeque 1979). A mean is kept as a pair, ``high`` in the compute type and ``low``, what is left:
x - mean must be right to the last place even when the mean is ten thousand standard deviations.
"""

from normkit.backends.numba.runs_backward import backward
from normkit.backends.numba.runs_forward import forward

__all__ = ["backward", "forward"]
