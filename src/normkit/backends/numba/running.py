"""The running statistics of a batch norm, moved by the thread that has the statistics of a channel in hand."""

from normkit.backends.numba.jit import cast, jit


@jit
def move_running(g, running_means, running_variances, k, mean, var, zero):
    """Move the running mean and the running (unbiased) variance of channel k, if there are any."""
    if g.running_mean == 0:
        return
    count, kept = float(g.r * g.s), 1.0 - g.momentum
    unbiased = var * (count / (count - 1.0))
    running_means[k] = cast(kept * float(running_means[k]) + g.momentum * mean, zero)
    running_variances[k] = cast(kept * float(running_variances[k]) + g.momentum * unbiased, zero)
