"""Whether a layer of somebody's own keeps the statistics that are measured: tried on an input that it got."""

from collections.abc import Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.model.norms import RUNNING, running_stats
from normkit.model.preserve import set_mode, stored_mode
from normkit.model.recalibrate.moments import batch_sums

_TOLERANCE: Final = 1e-3
"""Largest error of an update, relative to the update: float16 buffers, and a layer that takes E[x²] - E[x]²."""


def why_not(layer: nn.Module, x: Tensor, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str | None:
    """Say why a layer's running statistics are not the mean and variance of its channels; None if they are.

    The layer runs in training mode on its own input, each channel scaled and shifted in its own way (which tells a
    variance from a standard deviation), from statistics that are far from those of this input. It has to move them
    towards them: all channels by the same share, as momentum does.

    Args:
        layer: The layer; what it does to its buffers is undone.
        x: Its input, (N, C, *).
        arguments: What it was called with, x among it.
        keywords: The same.
    """
    own, mode = dict(layer._buffers), stored_mode(layer)
    shares = 1 + torch.arange(x.shape[1], device=x.device).double().mul(0.618).frac()  # no two channels alike
    spread = x.double().std()
    shape = (-1, *[1] * (x.dim() - 2))
    tried = (x * (1 + shares).view(shape) + (shares * (1 + spread)).view(shape)).to(x.dtype)
    moments = batch_sums(tried).moments
    mean, var = moments.mean, moments.m2 / moments.size
    far = {"running_mean": mean + shares * (1 + var.sqrt()), "running_var": (1 + shares) * (1 + var)}
    try:
        for name, buffer in own.items():
            value = far[name].view(buffer.shape).to(buffer.dtype) if buffer is not None and name in far else buffer
            layer._buffers[name] = None if value is None else value.clone()
        set_mode(layer, training=True)
        before = [running_stats(layer)[name].double().flatten() for name in RUNNING]
        layer.forward(
            *(tried if value is x else value for value in arguments),
            **{key: tried if value is x else value for key, value in keywords.items()},
        )
        after = [running_stats(layer)[name].double().flatten() for name in RUNNING]
    finally:
        layer._buffers.update(own)
        set_mode(layer, training=mode)
    unbiased = moments.m2 / (moments.size - 1)
    if all(map(torch.equal, before, after)):
        return "it does not update its running statistics in training mode"
    if not _moves_towards(before[0], after[0], (mean,)):
        return "its running_mean is not the mean of each channel over all other axes of its input"
    if not _moves_towards(before[1], after[1], (unbiased, var)):
        return "its running_var is not the variance of each channel over all other axes of its input"
    return None


def _moves_towards(before: Tensor, after: Tensor, targets: Sequence[Tensor]) -> bool:
    """Whether an update goes the same share of the way to one of the targets in all channels."""
    moved = after - before
    for target in targets:
        way = target - before
        share = (moved * way).sum() / (way * way).sum()
        error = (moved - share * way).abs().max() / moved.abs().max()
        if bool((share > 0) & (share < 1 + _TOLERANCE) & (error < _TOLERANCE)):
            return True
    return False
