"""Running statistics: what is stored, and when."""

from typing import NamedTuple

import torch
from torch import Tensor


class Running(NamedTuple):
    """The buffers of a layer that keeps running statistics.

    Args:
        mean, var: Shape (C,). Updated in place.
        momentum: The weight of the **new** batch.
    """

    mean: Tensor
    var: Tensor
    momentum: float


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


def _move(target: Tensor, new: Tensor, momentum: float, correction: float) -> None:
    target.mul_(1.0 - momentum).add_(new.to(target.dtype), alpha=momentum * correction)
