"""Histograms of the input and the output of each normalization during one training step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.train.results import Activation

BINS: Final = 60
SPREAD: Final = 4.0
"""A histogram reaches this many standard deviations to each side; the few values beyond are left out."""
PLACES: Final = {"1": "convolution 1", "2": "convolution 2", "3": "linear 1", "4": "linear 2"}
"""The model's four sigmoids, each with or without a normalization before it."""


@contextmanager
def watch(model: nn.Sequential, *, active: bool) -> Iterator[dict[tuple[str, str], Tensor]]:
    """While open, keep the input and output of every normalization by (place, side), if ``active``.

    Where a sigmoid has no normalization before it, its input is kept as ``"before"``.
    """
    seen: dict[tuple[str, str], Tensor] = {}
    layers = dict(model.named_children())
    handles = []
    for number, place in PLACES.items() if active else ():
        norm = layers.get(f"norm{number}")

        def keep(
            _: nn.Module, inputs: tuple[Any, ...], output: Any, place: str = place, *, ends: bool = bool(norm)
        ) -> None:
            seen[place, "before"] = inputs[0].detach().clone()
            if ends:
                seen[place, "after"] = output.detach().clone()

        handles.append((norm or layers[f"sigmoid{number}"]).register_forward_hook(keep))
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def histograms(seen: dict[tuple[str, str], Tensor], epoch: int, step: int) -> list[Activation]:
    """Return one record for each activation that ``watch`` kept; values that are not finite are left out."""
    records = []
    for (place, side), tensor in seen.items():
        values = tensor.flatten().double()
        values = values[values.isfinite()]
        if len(values) == 0:
            continue
        mean, std = float(values.mean()), float(values.std(correction=0))
        low = max(float(values.min()), mean - SPREAD * std)
        high = min(float(values.max()), mean + SPREAD * std)
        if not high > low:  # a constant activation has no width
            low, high = mean - 0.5, mean + 0.5
        counts = torch.histc(values, bins=BINS, min=low, max=high).long().tolist()
        records.append(Activation(place, side, epoch, step, mean, std, low, high, counts))
    return records
