"""Running statistics: what is stored, and when."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Running(NamedTuple):
    """The buffers of a layer that keeps running statistics.

    Args:
        mean, var: Shape (C,). Updated in place.
        momentum: The weight of the **new** batch; a tensor inside compiled graphs, where a number that changes with
            every batch would compile them anew.
        num_batches_tracked: How many batches have updated them, to be incremented; None: batches are not counted.
    """

    mean: Tensor
    var: Tensor
    momentum: float | Tensor
    num_batches_tracked: Tensor | None = None

    def count_batch(self) -> None:
        """Count a batch."""
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


def update_running(running: Running, mean: Tensor, var: Tensor, count: float) -> None:
    """Update the running statistics by those of a batch, in place.

    The variance that is stored is the unbiased one, var · n / (n - 1); the one that normalizes is the biased one.

    Args:
        mean, var: The batch's mean and biased variance: shape (C,), or (N, C), whose samples are averaged.
        count: How many elements each of them was taken from.
    """
    with torch.no_grad():
        correction = count / (count - 1) if count > 1 else float("nan")
        if mean.dim() == 2:
            mean, var = mean.mean(0), var.mean(0)
        _move(running.mean, mean, running.momentum, 1.0)
        _move(running.var, var, running.momentum, correction)


def _move(target: Tensor, new: Tensor, momentum: float | Tensor, correction: float) -> None:
    moved = widened(target)
    new = new.to(moved.dtype)
    if isinstance(momentum, Tensor):
        moved.mul_(1.0 - momentum).add_(new * (momentum * correction))
    else:
        moved.mul_(1.0 - momentum).add_(new, alpha=momentum * correction)
    if moved is not target:
        target.copy_(moved)


def widened(statistic: Tensor) -> Tensor:
    """Return a running statistic in single precision at least: a batch's own variance may exceed the range of float16.

    It is the statistic itself where it has that already.
    """
    return statistic.to(torch.promote_types(statistic.dtype, torch.float32))


class Moments(NamedTuple):
    """Statistics of a set of elements per channel, by which sets can be merged.

    Args:
        size: How many elements there are of each channel; a tensor without axes.
        mean, m2: Their mean, and the sum of their squared distances from it: shape (C,), float64.
    """

    size: Tensor
    mean: Tensor
    m2: Tensor


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """Merge the moments of several sets, which may differ in size or be empty.

    Reference:
        Chan, Golub & LeVeque 1979, STAN-CS-79-773, Eq. 2.1.
    """
    sizes = torch.stack([part.size for part in parts])[:, None]
    means = torch.stack([part.mean for part in parts])
    size = sizes.sum()
    mean = (sizes * means).sum(0) / torch.where(size > 0, size, 1.0)
    m2 = torch.stack([part.m2 for part in parts]).sum(0) + (sizes * (means - mean) ** 2).sum(0)
    return Moments(size, mean, m2)


def effective_size(total: Tensor, squares: Tensor) -> Tensor:
    """Return how many equal weights say as much: Kish's effective sample size; 0 where there are none."""
    return total.square() / torch.where(squares > 0, squares, 1.0)
