"""Kernels for long runs: each statistic is taken by one thread, which walks along S.

The sums of a block, of x and of its squares, are taken about a pivot close to its mean (the mean of its beginning; if
that proves to be too far off, a second time about a better one), and blocks are merged in float64 (Chan, Golub &
LeVeque 1979). A mean is kept as a pair, ``mean_hi`` in the compute dtype and ``mean_lo``, what rounding left of it:
x - mean must be right to the last place even when the mean is ten thousand standard deviations.
"""
