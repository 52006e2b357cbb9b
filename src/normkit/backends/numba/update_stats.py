"""What becomes of a mean and a variance: the thread that has them in hand keeps them and moves the running ones."""

import numpy as np

from normkit.backends.numba.compile import cast, jit, pointer


@jit
def move_running(g, running_means, running_variances, unit, mean, var, zero):
    """Move the running mean and the running (unbiased) variance of a unit, if there are any: it is a channel's."""
    if g.running_mean == 0:
        return
    count, kept = float(g.r * g.s), 1.0 - g.momentum
    unbiased = var * (count / (count - 1.0))
    running_means[unit] = cast(kept * float(running_means[unit]) + g.momentum * mean, zero)
    running_variances[unit] = cast(kept * float(running_variances[unit]) + g.momentum * unbiased, zero)


@jit
def count_batch(g, part, phase):
    """Count a batch that moves the running statistics: the first part does, in the first phase there is."""
    if g.num_batches_tracked != 0 and part == 0 and phase <= 1:
        pointer(g.num_batches_tracked, np.int64)[0] += 1


@jit
def keep_statistics(g, unit, mean, var, means, variances, rstds, running_means, running_variances, zero):
    """Write the statistics of a unit, and move the running ones; returns what rounding left of the mean."""
    means[unit], variances[unit] = cast(mean, zero), cast(var, zero)
    rstds[unit] = cast(1.0 / np.sqrt(var + g.eps), zero)
    move_running(g, running_means, running_variances, unit, mean, var, zero)
    return cast(mean - float(means[unit]), zero)
