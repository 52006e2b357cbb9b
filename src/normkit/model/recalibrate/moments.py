"""The statistics of inputs of a layer, in float64: of one input, and of several as one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normkit.statistics import Moments, merge_moments


class Statistics(NamedTuple):
    """What a layer keeps: of each channel, float64.

    Args:
        mean: The mean.
        var: The unbiased variance.
    """

    mean: Tensor
    var: Tensor


def batch_moments(x: Tensor, axis: int) -> Moments:
    """Return the moments of each channel of an input, over all other axes."""
    wide = x.detach().double()
    others = [other for other in range(x.dim()) if other != axis]
    count = x.numel() // max(x.shape[axis], 1)
    var, mean = torch.var_mean(wide, others, correction=0) if count else (wide.new_zeros(x.shape[axis]),) * 2
    return Moments(wide.new_full((), count), mean, var * count)


def instance_moments(x: Tensor, axis: int) -> Moments:
    """Return the moments of an instance norm's input, whose sets are (sample, channel).

    Its running statistics are averages over samples: ``size`` counts samples, ``mean`` is their average mean, and
    ``m2`` the sum of their unbiased variances.
    """
    samples = x.detach().double().flatten(axis + 1)
    samples = samples[None] if axis == 0 else samples  # (N, C, S)
    var, mean = torch.var_mean(samples, 2)
    return Moments(samples.new_full((), len(samples)), _average(mean), var.sum(0))


def _average(means: Tensor) -> Tensor:
    return means.mean(0) if len(means) else means.new_zeros(means.shape[1])


def merge(parts: Sequence[Moments], kind: str) -> Moments | None:
    """Return the moments of several inputs as one; None if all are empty.

    Args:
        parts: On one device.
        kind: "instance", or "batch".
    """
    parts = [part for part in parts if part.size > 0]
    if not parts:
        return None
    if kind != "instance":
        return merge_moments(parts)
    sizes = torch.stack([part.size for part in parts])
    means = torch.stack([part.mean for part in parts])
    size = sizes.sum()
    return Moments(size, (sizes[:, None] * means).sum(0) / size, torch.stack([part.m2 for part in parts]).sum(0))


def statistics(moments: Moments, kind: str) -> Statistics:
    """Return what a layer keeps of these moments; the variance of a single value is NaN."""
    divisor = moments.size if kind == "instance" else moments.size - 1
    return Statistics(moments.mean, moments.m2 / divisor)
