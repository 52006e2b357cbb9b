"""Masked normalization by plain operations: any device, any layout, differentiable any number of times.

Padding is selected away and never multiplied by zero, so that NaN or infinity in it, or in its gradient, stays there.
"""

import torch
from torch import Tensor

from normkit.backends.call import Call
from normkit.backends.dtypes import compute_dtype
from normkit.backends.layout import memory_order
from normkit.backends.masks import Mask, Sums
from normkit.statistics import Running, effective_size, widened


def without_padding(x: Tensor, mask: Tensor | Mask) -> Tensor:
    """Return a tensor with 0 at padding, whatever is there; the gradient of padding is 0 as well."""
    valid = mask.valid if isinstance(mask, Mask) else mask
    if memory_order(x) is None:
        x = x.contiguous()  # and so will the result be
    return torch.where(valid, x, torch.zeros((), dtype=x.dtype, device=x.device))


def channels_together(call: Call) -> int:
    """Return how many channels share a statistic."""
    return call.x.shape[1] // call.norm.num_groups if call.norm.kind == "group" else 1


def normalize_by_operations(call: Call, mask: Mask, sums: Sums) -> Tensor:
    """Normalize what is valid of x, and update the running statistics by it; padding becomes 0."""
    _, norm, weight, bias, eps, running, *_ = call
    x = without_padding(call.x, mask)
    groups = norm.num_groups if norm.kind == "group" else x.shape[1]
    spatial = x.shape[2:]
    grouped = x.to(compute_dtype(x.dtype)).reshape(x.shape[0], groups, x.shape[1] // groups, *spatial)
    weights = mask.weights.unsqueeze(2)  # (N, 1, 1, *)
    axes = (0, *range(3, grouped.dim())) if norm.kind == "batch" else tuple(range(2, grouped.dim()))
    total = weights.sum(axes, keepdim=True) * channels_together(call)
    share = weights / torch.where(total > 0, total, 1.0)
    mean = (grouped * share).sum(axes, keepdim=True)
    deviation = grouped - mean
    rest = (deviation * share).sum(axes, keepdim=True)  # the mean was rounded
    deviation = deviation - rest
    var = (deviation.square() * share).sum(axes, keepdim=True)
    if running is not None:
        shape = (-1, running.mean.numel())
        update_running_masked(running, (mean + rest).detach().view(shape), var.detach().view(shape), sums)
    y = (deviation * torch.rsqrt(var + eps)).reshape(x.shape)
    per_channel = (1, -1, *[1] * len(spatial))
    if weight is not None:
        y = y * weight.to(y.dtype).view(per_channel)
    if bias is not None:
        y = y + bias.to(y.dtype).view(per_channel)
    return without_padding(y.to(x.dtype), mask)


def update_running_masked(running: Running, mean: Tensor, var: Tensor, sums: Sums) -> None:
    """Update running statistics by those of the valid elements: of a batch, or of each sample with any.

    The variance is made unbiased by the effective number of elements, (sum of weights)² / (sum of squares): their
    number, where all weigh the same.

    Args:
        running: What is updated.
        mean, var: Of shape (1, C) or (N, C); the variance is the biased one.
        sums: Of the mask.
    """
    totals, squares = sums.totals, sums.squares
    if mean.shape[0] == 1:
        totals, squares = totals.sum(0, keepdim=True), squares.sum(0, keepdim=True)
    size = effective_size(totals, squares)[:, None]
    used = size > 0
    unbiased = var * (size / torch.where(size > 1, size - 1, torch.nan)).to(var.dtype)
    _move(running, _mean_of(mean, used), _mean_of(unbiased, used), used.any())


def _mean_of(values: Tensor, used: Tensor) -> Tensor:
    """Return the mean over the samples that are used."""
    return torch.where(used, values, 0.0).sum(0) / used.sum().clamp(min=1)


def _move(running: Running, mean: Tensor, unbiased_var: Tensor, known: Tensor) -> None:
    """Update running statistics by a mean and an unbiased variance, if they are known."""
    with torch.no_grad():
        for target, new in ((running.mean, mean), (running.var, unbiased_var)):
            momentum, old = running.momentum, widened(target)
            momentum = momentum.to(old.dtype) if isinstance(momentum, Tensor) else momentum
            moved = torch.lerp(old, new.to(old.dtype), momentum)
            target.copy_(torch.where(known, moved, old))
