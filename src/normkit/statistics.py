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
        batches: How many batches have moved them, to be counted up by one as this one does; None: it is not counted.
    """

    mean: Tensor
    var: Tensor
    momentum: float | Tensor
    batches: Tensor | None = None

    def count_batch(self) -> None:
        """Count a batch."""
        if self.batches is not None:
            self.batches.add_(1)


def update_running(running: Running, mean: Tensor, var: Tensor, count: int) -> None:
    """Move the running statistics towards those of a batch, in place.

    The variance that is stored is the unbiased one, var · n / (n - 1); the one that normalizes is the biased one.

    Args:
        mean, var: The batch's mean and biased variance: shape (C,), or (N, C) of an instance norm, whose samples are
            averaged.
        count: How many numbers each of them was taken from.
    """
    with torch.no_grad():
        correction = count / (count - 1) if count > 1 else float("nan")
        if mean.dim() == 2:
            mean, var = mean.mean(0), var.mean(0)
        _move(running.mean, mean, running.momentum, 1.0)
        _move(running.var, var, running.momentum, correction)


def _move(target: Tensor, new: Tensor, momentum: float | Tensor, correction: float) -> None:
    new = new.to(target.dtype)
    if isinstance(momentum, Tensor):
        target.mul_(1.0 - momentum).add_(new * (momentum * correction))
    else:
        target.mul_(1.0 - momentum).add_(new, alpha=momentum * correction)


class Moments(NamedTuple):
    """What a set of numbers per channel leaves behind, and what sets can be merged by.

    Args:
        size: How many numbers there are of each channel; a tensor without axes.
        mean, m2: Their mean, and the sum of their squared distances from it: shape (C,), float64.
    """

    size: Tensor
    mean: Tensor
    m2: Tensor


def merge_moments(parts: Sequence[Moments]) -> Moments:
    """The moments of all numbers of several sets, which may be of different sizes, or empty.

    Reference:
        Chan, Golub & LeVeque 1979, STAN-CS-79-773, Eq. 2.1.
    """
    sizes = torch.stack([part.size for part in parts])[:, None]
    means = torch.stack([part.mean for part in parts])
    size = sizes.sum()
    mean = (sizes * means).sum(0) / size
    m2 = torch.stack([part.m2 for part in parts]).sum(0) + (sizes * (means - mean) ** 2).sum(0)
    return Moments(size, mean, m2)
