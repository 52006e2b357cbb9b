"""What becomes of a mean and a variance: the thread that has computed them stores them and updates the running ones."""

import numpy as np

from normkit.backends.numba.compile import cast, jit, pointer


@jit
def store_stats(g, stat, mean, var, stats, running, zero):
    """Store the mean, variance and rstd of a statistic, and update the running ones; return mean_lo."""
    means, variances, rstds = stats
    means[stat], variances[stat] = cast(mean, zero), cast(var, zero)
    rstds[stat] = cast(1.0 / np.sqrt(var + g.eps), zero)
    update_running(g, running, stat, mean, var, zero)
    return cast(mean - float(means[stat]), zero)


@jit
def update_running(g, running, stat, mean, var, zero):
    """Update the running mean and the running (unbiased) variance, if there are any: a statistic is a channel then."""
    if g.running_mean == 0:
        return
    means, variances = running
    count, kept = float(g.r * g.s), 1.0 - g.momentum
    unbiased = var * (count / (count - 1.0))
    means[stat] = cast(kept * float(means[stat]) + g.momentum * mean, zero)
    variances[stat] = cast(kept * float(variances[stat]) + g.momentum * unbiased, zero)


@jit
def count_batch(g, part, phase):
    """Count a batch that updates running statistics: the first part does, in the first phase there is."""
    if g.num_batches_tracked != 0 and part == 0 and phase <= 1:
        pointer(g.num_batches_tracked, np.int64)[0] += 1
