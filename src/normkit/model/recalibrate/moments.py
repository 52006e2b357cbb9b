"""The statistics of inputs of a layer, in float64: of one input, and of several as one."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normkit.backends.masks import Mask
from normkit.statistics import Moments, effective_size, merge_moments


class Statistics(NamedTuple):
    """What a layer keeps: of each channel, float64.

    Args:
        mean: The mean.
        var: The unbiased variance.
    """

    mean: Tensor
    var: Tensor


class Sums(NamedTuple):
    """What is added up of inputs.

    Args:
        moments: Of each channel; ``size`` is the sum of weights. Of an instance norm, whose statistics are averages
            over samples: ``size`` counts samples, ``mean`` is their average mean, and ``m2`` the sum of their unbiased
            variances.
        squares: The sum of squared weights, which makes a weighted variance unbiased.
        elements: How many are not padding; of an instance norm, how many samples.
    """

    moments: Moments
    squares: Tensor
    elements: Tensor

    def is_finite(self) -> bool:
        """Whether there is no NaN and no infinity."""
        return bool(self.moments.mean.isfinite().all() & self.moments.m2.isfinite().all())

    def cpu(self) -> "Sums":
        """Return the same in the memory of the CPU."""
        return Sums(Moments(*(value.cpu() for value in self.moments)), self.squares.cpu(), self.elements.cpu())


def batch_sums(x: Tensor, mask: Mask | None = None) -> Sums:
    """Return the sums of an input (N, C, *), for each channel over all other axes."""
    axes = (0, *range(2, x.dim()))
    wide = x.detach().double()
    if mask is None:
        count = wide.new_full((), x.numel() // x.shape[1])
        var, mean = torch.var_mean(wide, axes, correction=0)
        return Sums(Moments(count, mean, var * count), count, count)
    weights = mask.weights.double()
    size = weights.sum()
    mean, m2 = _weighted(wide, mask, axes, size)
    return Sums(Moments(size, mean.flatten(), m2.flatten()), weights.square().sum(), mask.valid.double().sum())


def instance_sums(x: Tensor, mask: Mask | None = None) -> Sums:
    """Return the sums of an input (N, C, *) of an instance norm, which averages each channel of each sample."""
    wide = x.detach().double()
    axes = tuple(range(2, x.dim()))
    if mask is None:
        samples = wide.new_full((), len(x))
        var, mean = torch.var_mean(wide, axes)
        return Sums(Moments(samples, mean.mean(0), var.sum(0)), samples, samples)
    weights = mask.weights.double()
    size = weights.sum(axes, keepdim=True)  # (N, 1, *)
    used = (size > 0).flatten()
    mean, m2 = _weighted(wide, mask, axes, size)
    equal = effective_size(size, weights.square().sum(axes, keepdim=True))
    var = m2 / size * equal / (equal - 1)
    samples = used.double().sum()
    return Sums(Moments(samples, mean.flatten(1)[used].mean(0), var.flatten(1)[used].sum(0)), samples, samples)


def _weighted(wide: Tensor, mask: Mask, axes: tuple[int, ...], size: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and weighted sum of squared distances of what is not padding, with the axes kept."""
    wide, weights = torch.where(mask.valid, wide, 0.0), mask.weights.double()
    mean = (wide * weights).sum(axes, keepdim=True) / size
    return mean, ((wide - mean).square() * weights).sum(axes, keepdim=True)


def merge(parts: Sequence[Sums], kind: str) -> Sums | None:
    """Return the sums of several inputs; None if all are empty.

    Args:
        parts: On one device.
        kind: "instance", or "batch".
    """
    parts = [part for part in parts if part.elements > 0]
    if not parts:
        return None
    moments = (_merge_samples if kind == "instance" else merge_moments)([part.moments for part in parts])
    squares, elements = (torch.stack(values).sum() for values in zip(*(part[1:] for part in parts), strict=True))
    return Sums(moments, squares, elements)


def _merge_samples(parts: Sequence[Moments]) -> Moments:
    sizes = torch.stack([part.size for part in parts])
    means = torch.stack([part.mean for part in parts])
    size = sizes.sum()
    return Moments(size, (sizes[:, None] * means).sum(0) / size, torch.stack([part.m2 for part in parts]).sum(0))


def statistics(sums: Sums, kind: str) -> Statistics:
    """Return what a layer keeps of these sums; the variance of a single value is NaN."""
    (size, mean, m2), squares, _ = sums
    if kind == "instance":
        return Statistics(mean, m2 / size)
    equal = effective_size(size, squares)
    return Statistics(mean, m2 / size * (equal / (equal - 1)))
