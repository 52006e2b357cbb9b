"""What a layer saw: the mean and variance of each call, how samples vary within a batch, and padded positions."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from normkit.backends.masks import read_mask
from normkit.model.norms import channel_axis, running_stats
from normkit.model.recipes import eps_of

_EDGE: Final = 4
"""Positions at the end of a sequence that a convolution may have changed although they are padded."""
_SHORTEST_PADDING: Final = 3


class Tracked(NamedTuple):
    """A layer that keeps running statistics.

    Args:
        name: Its name in the model.
        module: The layer.
        kind: "batch", or "instance", whose statistics are those of each sample.
    """

    name: str
    module: nn.Module
    kind: str

    @property
    def eps(self) -> float:
        """What it adds to the variance."""
        return eps_of(self.module) or 0.0

    @property
    def running(self) -> tuple[Tensor, Tensor]:
        """Its running mean and variance: shape (C,), float64."""
        mean, var = running_stats(self.module).values()
        return _vector(mean), _vector(var)


class Seen(NamedTuple):
    """What one call of a layer got.

    Args:
        samples: Samples behind a statistic: the batch, or one of an instance norm.
        values: Values behind a statistic.
        mean, var: Of each channel, biased: shape (C,), float64. Of an instance norm the average over the samples.
        within: The variance of the samples' means around the batch's, times the samples less one: shape (C,).
        padded: The share of positions that are padded.
        mean_unpadded, var_unpadded: Of the other positions.
    """

    samples: int
    values: int
    mean: Tensor
    var: Tensor
    within: Tensor
    padded: float
    mean_unpadded: Tensor
    var_unpadded: Tensor

    @property
    def is_finite(self) -> bool:
        """Whether no channel holds NaN or infinity."""
        return bool((self.mean.isfinite() & self.var.isfinite()).all())


class Pooled(NamedTuple):
    """Statistics of all calls as one, as a layer stores them: the variance is unbiased."""

    mean: Tensor
    var: Tensor


class Input(NamedTuple):
    """What a layer is called with.

    Args:
        x: Its input: (N, C, positions).
        weights: How much the layer counts each position: (N, positions); None: all alike.
    """

    x: Tensor
    weights: Tensor | None


def input_of(layer: Tracked, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Input | None:
    """Return the input of a layer; None if it is empty, or its channels cannot be found."""
    x = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
    if x is None or x.dim() < 2 or not x.numel() or not x.is_floating_point():
        return None
    channels = layer.running[0].numel()
    x = x[None] if channel_axis(layer.module, x) == 0 else x
    if x.shape[1] != channels:
        if x.shape[-1] != channels:
            return None
        x = x.movedim(-1, 1)
    x = x.detach()
    x = x if x.dtype == torch.float64 else x.float()
    return Input(x.flatten(2) if x.dim() > 2 else x[..., None], _weights(x, kwargs))


def _weights(x: Tensor, kwargs: Mapping[str, Any]) -> Tensor | None:
    """Return the weights of the positions of a layer that was called with ``mask`` or ``lengths``."""
    if all(kwargs.get(name) is None for name in ("mask", "lengths")):
        return None
    try:
        return read_mask(x, kwargs.get("mask"), kwargs.get("lengths")).weights.flatten(1)
    except (ValueError, TypeError, RuntimeError):
        return None  # a layer of somebody's own, which means something else by it


def look(layer: Tracked, given: Input) -> Seen:
    """Return the statistics of one call."""
    x, weights = given
    samples, _, positions = x.shape
    if layer.kind == "instance":
        var, mean = torch.var_mean(x, 2, correction=0)
        mean, var = _vector(mean.mean(0)), _vector(var.mean(0))
        return Seen(1, positions, mean, var, torch.zeros_like(mean), 0.0, mean, var)
    mean, var = _moments(x, weights)
    within = _sample_means(x, weights).var(0, correction=0) * samples
    padding = padded_positions(x) if weights is None else None
    unpadded = (mean, var) if padding is None or padding.all() else _moments(x, (~padding).to(x))
    share = 0.0 if padding is None else float(padding.double().mean())
    count = samples * positions if weights is None else int((weights > 0).sum())
    return Seen(samples, count, mean, var, _vector(within), share, *unpadded)


def padded_positions(x: Tensor) -> Tensor | None:
    """Return which positions (N, L) of sequences (N, C, L) are padded, or None if none are.

    Padded positions are equal to their neighbours in every channel, at the end or the start of a sequence, and their
    number differs from sequence to sequence.
    """
    if x.shape[0] < 2 or x.shape[2] <= 2 * _EDGE:
        return None
    equal = (x[:, :, 1:] == x[:, :, :-1]).all(1)
    if not equal.any():
        return None
    repeated = torch.zeros(x.shape[0], x.shape[2], dtype=torch.bool, device=x.device)
    repeated[:, 1:] |= equal
    repeated[:, :-1] |= equal
    padding = _last_run(repeated) | _last_run(repeated.flip(1)).flip(1)
    lengths = padding.sum(1)
    return padding if lengths.min() < lengths.max() else None


def pool(layer: Tracked, calls: Sequence[Seen], *, unpadded: bool = False) -> Pooled:
    """Return the statistics of all calls as one; of each channel those calls that are finite there."""
    means = torch.stack([seen.mean_unpadded if unpadded else seen.mean for seen in calls])
    variances = torch.stack([seen.var_unpadded if unpadded else seen.var for seen in calls])
    finite = means.isfinite() & variances.isfinite()
    sizes = torch.tensor([float(seen.values) for seen in calls], dtype=torch.float64)[:, None] * finite
    means, variances = (torch.where(finite, value, 0.0) for value in (means, variances))
    size = sizes.sum(0)
    mean = (sizes * means).sum(0) / size
    if layer.kind == "instance":
        factor = calls[0].values / max(calls[0].values - 1, 1)
        return Pooled(mean, (sizes * variances).sum(0) / size * factor)
    m2 = (sizes * (variances + (means - mean) ** 2)).sum(0)
    return Pooled(mean, m2 / (size - 1).clamp(min=1))


def _moments(x: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    if weights is None:
        var, mean = torch.var_mean(x, (0, 2), correction=0)
        return _vector(mean), _vector(var)
    mean = (_weighted(x, weights).sum((0, 2)) / weights.sum())[:, None]
    var = _weighted((x - mean) ** 2, weights).sum((0, 2)) / weights.sum()
    return _vector(mean), _vector(var)


def _sample_means(x: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean of each sample: (N, C)."""
    return (
        x.mean(2) if weights is None else _weighted(x, weights).sum(2) / weights.sum(1, keepdim=True).clamp(min=1e-12)
    )


def _weighted(x: Tensor, weights: Tensor) -> Tensor:
    """Return values times their weights; what is at a weight of 0 does not count, whatever it is."""
    return torch.where(weights[:, None] > 0, x, 0.0) * weights[:, None]


def _last_run(marked: Tensor) -> Tensor:
    """Return the run of marked positions that ends within the last few."""
    length = marked.shape[1]
    index = torch.arange(length, device=marked.device)
    run = index - torch.where(marked, -1, index).cummax(1).values
    run = torch.where(marked, run, 0)
    longest, place = run[:, -_EDGE - 1 :].max(1)
    end = place + length - _EDGE - 1
    longest = torch.where(longest >= _SHORTEST_PADDING, longest, 0)
    return (index > (end - longest)[:, None]) & (index <= end[:, None]) & (longest > 0)[:, None]


def _vector(values: Tensor) -> Tensor:
    return values.detach().reshape(-1).cpu().double()
