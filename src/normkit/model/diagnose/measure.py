"""The numbers of each layer: from what it saw and what it stores."""

import math
from collections import defaultdict
from collections.abc import Sequence
from statistics import median
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from normkit.model.diagnose.observe import Input, Pooled, Seen, Tracked, look, pool
from normkit.model.diagnose.report import Curves

_BINS: Final = torch.linspace(-5.0, 5.0, 52, dtype=torch.float64)
_SAMPLED: Final = 32768
_SMALL_WEIGHT: Final = 1e-3
_CONSTANT: Final = 1e-12
"""A variance below this share of the mean's square is rounding."""


class Observations:
    """What all layers saw, in one form."""

    def __init__(self, *, histograms_by: str) -> None:
        self._by = histograms_by
        self._calls: dict[str, dict[int, list[Seen]]] = defaultdict(lambda: defaultdict(list))
        self._histograms: dict[str, Tensor] = defaultdict(lambda: torch.zeros(len(_BINS) - 1, dtype=torch.float64))

    def watch(self, layer: Tracked, use: int, given: Input) -> None:
        """Take note of a call."""
        seen, x = look(layer, given), given.x
        self._calls[layer.name][use].append(seen)
        mean, var = layer.running if self._by == "running" else (seen.mean, seen.var)
        std = (var + layer.eps).sqrt()
        values = x.movedim(1, 0).flatten(1)[:, :: -(-x.numel() // _SAMPLED)].cpu().double()
        z = (values - mean[:, None]) / std[:, None]
        self._histograms[layer.name] += torch.histogram(z[z.isfinite()], _BINS).hist

    @property
    def order(self) -> list[str]:
        """Names of the layers, in the order in which they ran first."""
        return list(self._calls)

    def calls(self, name: str) -> list[Seen]:
        """Return all calls of a layer."""
        return [seen for calls in self._calls[name].values() for seen in calls]

    def uses(self, name: str) -> list[list[Seen]]:
        """Return the calls of a layer, by their place in the forward pass."""
        return list(self._calls[name].values())

    def histogram(self, name: str) -> tuple[float, ...]:
        """Return the share of normalized values in each bin."""
        counts = self._histograms[name]
        return tuple((counts / counts.sum().clamp(min=1)).tolist())


class Statistics(NamedTuple):
    """Statistics of a layer by all batches as one.

    Args:
        merged: Of all uses.
        per_use: Of each use in a forward pass.
        unpadded: Of the positions that are not padded.
    """

    merged: Pooled
    per_use: tuple[Pooled, ...]
    unpadded: Pooled


def statistics_of(layer: Tracked, seen: Observations) -> Statistics:
    """Return the statistics of a layer by all that it saw."""
    calls = seen.calls(layer.name)
    per_use = tuple(pool(layer, use) for use in seen.uses(layer.name))
    return Statistics(pool(layer, calls), per_use, pool(layer, calls, unpadded=True))


def apart(layer: Tracked, used: Pooled, right: Pooled) -> float:
    """Return how far values are that are normalized by other statistics: root of the mean square over channels.

    The exact mean over values of the right mean and variance, whatever their distribution.
    """
    std_used, std_right = ((var.clamp(min=0) + layer.eps).sqrt() for var in (used.var, right.var))
    squares = ((right.mean - used.mean) / std_used) ** 2 + (std_right / std_used - 1) ** 2
    return _rms(squares)


def numbers_of(layer: Tracked, seen: Observations, right: Statistics) -> dict[str, Any]:
    """Return those fields of a ``Layer`` that follow from what it saw and what it stores."""
    calls = seen.calls(layer.name)
    running = Pooled(*layer.running)
    finite = running.mean.isfinite() & running.var.isfinite()
    var = right.merged.var
    constant = var <= _CONSTANT * right.merged.mean.square()
    weight = getattr(layer.module, "weight", None)
    small = torch.zeros_like(constant)
    if isinstance(weight, Tensor) and weight.numel() == small.numel():
        small = weight.detach().reshape(-1).cpu().double().abs() < _SMALL_WEIGHT
    std = (var + layer.eps).sqrt()
    swallowed = layer.eps / (torch.fmax(var, running.var) + layer.eps)[~constant]
    return {
        "name": layer.name,
        "cls": type(layer.module).__name__,
        "kind": layer.kind,
        "channels": running.mean.numel(),
        "uses": len(seen.uses(layer.name)),
        "samples": round(median(one.samples for one in calls)),
        "values": round(median(one.values for one in calls)),
        "mean_distance": _rms(((running.mean - right.merged.mean) / std) ** 2),
        "log_var_ratio": _rms(((running.var.clamp(min=0) + layer.eps) / (var + layer.eps)).log() ** 2),
        "shift": apart(layer, running, right.merged),
        "noise": noise_of(layer, seen, right),
        "use_distance": max(apart(layer, right.merged, use) for use in right.per_use),
        "between": median(between_batches(use) for use in seen.uses(layer.name)),
        "initial": bool((running.mean == 0).all() and (running.var == 1).all()),
        "nonfinite": int((~finite).sum()),
        "nonfinite_batches": sum(not one.is_finite for one in calls),
        "constant": int(constant.sum()),
        "dead": int((constant | small).sum()),
        "swallowed": float(swallowed.median()) if swallowed.numel() else 0.0,
        "padded": sum(one.padded for one in calls) / len(calls),
        "padding_distance": apart(layer, right.merged, right.unpadded),
    }


def between_batches(calls: Sequence[Seen]) -> float:
    """Return the variance of the batches' means in units of what chance would give: F, the median of the channels.

    Batches of independent samples give about 1. Reference: one-way analysis of variance, of the samples' means.
    """
    calls = [seen for seen in calls if seen.is_finite and seen.samples > 1]
    sizes = torch.tensor([float(seen.samples) for seen in calls], dtype=torch.float64)[:, None]
    if len(calls) < 2:
        return 1.0
    means = torch.stack([seen.mean for seen in calls])
    within = torch.stack([seen.within for seen in calls]).sum(0) / (sizes.sum() - len(calls))
    mean = (sizes * means).sum(0) / sizes.sum()
    between = (sizes * (means - mean) ** 2).sum(0) / (len(calls) - 1)
    ratio = (between / within)[within > 0]
    return float(ratio.median()) if ratio.numel() else 1.0


def noise_of(layer: Tracked, seen: Observations, right: Statistics) -> float:
    """Return how far values normalized by single batches are from those by all batches of the same use."""
    squares = [
        apart(layer, Pooled(one.mean, one.var), pooled) ** 2
        for use, pooled in zip(seen.uses(layer.name), right.per_use, strict=True)
        for one in use
        if one.is_finite
    ]
    return math.sqrt(sum(squares) / max(len(squares), 1))


def curves_of(layer: Tracked, right: Statistics, evaluated: Observations, trained: Observations) -> Curves:
    """Return what the plots of a layer show."""
    mean, var = layer.running
    return Curves(
        running_mean=tuple(mean.tolist()),
        running_std=tuple(var.clamp(min=0).sqrt().tolist()),
        batch_mean=tuple(right.merged.mean.tolist()),
        batch_std=tuple(right.merged.var.sqrt().tolist()),
        edges=tuple(_BINS.tolist()),
        by_running=evaluated.histogram(layer.name),
        by_batch=trained.histogram(layer.name),
    )


def _rms(squares: Tensor) -> float:
    finite = squares[squares.isfinite()]
    return float(finite.mean().sqrt()) if finite.numel() else 0.0
