"""Normalization of the elements that a mask leaves: statistics, results and gradients as if there were no others.

Padding is selected away and never multiplied by zero, so that NaN or infinity in it, or in its gradient, stays there.
"""

import torch
from torch import Tensor

from normkit.backends.call import Call
from normkit.backends.checks import check_tensors
from normkit.backends.dispatch import normalize
from normkit.backends.dtypes import compute_dtype
from normkit.backends.layout import memory_order
from normkit.backends.masks import Mask, can_be_inspected
from normkit.statistics import Running


def normalize_masked(call: Call, mask: Mask) -> Tensor:
    """Normalize what is valid, by its own statistics or by the running ones; padding becomes 0.

    Args:
        call: Of a batch, instance or group norm, without an epilogue.
        mask: Of its input.

    Raises:
        ValueError: statistics of one element; eps that is not positive.
        RuntimeError: a shape, dtype or device that does not fit.
    """
    x = call.x
    if call.use_input_stats:
        check_masked(call, mask)
        if call.running is not None:
            call.running.count_batch()
        y = _by_operations(call._replace(x=without_padding(x, mask)), mask)
    else:
        y = normalize(call._replace(x=without_padding(x, mask)))
    return without_padding(y, mask)


def without_padding(x: Tensor, mask: Tensor | Mask) -> Tensor:
    """Return a tensor with 0 at padding, whatever is there; the gradient of padding is 0 as well."""
    valid = mask.valid if isinstance(mask, Mask) else mask
    if memory_order(x) is None:
        x = x.contiguous()  # and so will the result be
    return torch.where(valid, x, torch.zeros((), dtype=x.dtype, device=x.device))


def check_masked(call: Call, mask: Mask) -> None:
    """Raise where the call does not fit, or where statistics would be taken from one valid element."""
    x, norm = call.x, call.norm
    check_tensors(call)
    if not x.is_floating_point():
        raise NotImplementedError(f"{norm.name}_norm expected an input of a floating-point type; got {x.dtype}")
    if norm.kind == "batch" and call.eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {call.eps}")
    if not can_be_inspected(x, mask.valid):
        return
    counts = mask.valid.sum() if norm.kind == "batch" else mask.valid.flatten(1).sum(1)
    if bool((counts * _channels_together(call) == 1).any()):
        where = "" if norm.kind == "batch" else " of a sample"
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)} with 1 valid "
            f"position{where}; mask it too, use a larger batch, or .eval() to normalize by running statistics"
        )


def _channels_together(call: Call) -> int:
    """Return how many channels share a statistic."""
    return call.x.shape[1] // call.norm.num_groups if call.norm.kind == "group" else 1


def _by_operations(call: Call, mask: Mask) -> Tensor:
    """Normalize x, which is 0 at padding, by plain operations: any device, differentiable any number of times."""
    x, norm, weight, bias, eps, running, *_ = call
    groups = norm.num_groups if norm.kind == "group" else x.shape[1]
    spatial = x.shape[2:]
    grouped = x.to(compute_dtype(x.dtype)).reshape(x.shape[0], groups, x.shape[1] // groups, *spatial)
    weights = mask.weights.unsqueeze(2)  # (N, 1, 1, *)
    axes = (0, *range(3, grouped.dim())) if norm.kind == "batch" else tuple(range(2, grouped.dim()))
    total = weights.sum(axes, keepdim=True) * _channels_together(call)
    share = weights / torch.where(total > 0, total, 1.0)
    mean = (grouped * share).sum(axes, keepdim=True)
    deviation = grouped - mean
    rest = (deviation * share).sum(axes, keepdim=True)  # the mean was rounded
    deviation = deviation - rest
    var = (deviation.square() * share).sum(axes, keepdim=True)
    if running is not None:
        _update_running(running, (mean + rest).detach(), var.detach(), weights.detach())
    y = (deviation * torch.rsqrt(var + eps)).reshape(x.shape)
    per_channel = (1, -1, *[1] * len(spatial))
    if weight is not None:
        y = y * weight.to(y.dtype).view(per_channel)
    if bias is not None:
        y = y + bias.to(y.dtype).view(per_channel)
    return y.to(x.dtype)


def _update_running(running: Running, mean: Tensor, var: Tensor, weights: Tensor) -> None:
    """Update running statistics by those of the valid elements: of a batch, or of each sample with any.

    The variance is made unbiased by the effective number of elements, (sum of weights)² / (sum of squares): their
    number, where all weigh the same.
    """
    samples = mean.shape[0]
    weights = weights.double().reshape(samples, -1)
    size = effective_size(weights.sum(1, keepdim=True), weights.square().sum(1, keepdim=True))
    used = size > 0  # (samples, 1)
    unbiased = var.reshape(samples, -1) * (size / torch.where(size > 1, size - 1, torch.nan)).to(var.dtype)
    _move(running, _mean_of(mean.reshape(samples, -1), used), _mean_of(unbiased, used), used.any())


def effective_size(total: Tensor, squares: Tensor) -> Tensor:
    """Return how many equal weights say as much: Kish's effective sample size; 0 where there are none."""
    return total.square() / torch.where(squares > 0, squares, 1.0)


def _mean_of(values: Tensor, used: Tensor) -> Tensor:
    """Return the mean over the samples that are used."""
    return torch.where(used, values, 0.0).sum(0) / used.sum().clamp(min=1)


def _move(running: Running, mean: Tensor, unbiased_var: Tensor, known: Tensor) -> None:
    """Update running statistics by a mean and an unbiased variance, if they are known."""
    with torch.no_grad():
        for target, new in ((running.mean, mean), (running.var, unbiased_var)):
            momentum = running.momentum
            momentum = momentum.to(target.dtype) if isinstance(momentum, Tensor) else momentum
            moved = torch.lerp(target, new.to(target.dtype), momentum)
            target.copy_(torch.where(known, moved, target))
