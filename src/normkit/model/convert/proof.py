"""What a model returns before and after, and what came to each of its layers on the way."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normkit.model.convert.report import Drift
from normkit.model.data import Forward, run_batch, tensors_in
from normkit.model.norms import NormLayer
from normkit.model.preserve import preserved

__all__ = ["Seen", "drift", "observe"]


class Seen(NamedTuple):
    """What a model returned in evaluation.

    Args:
        results: The tensors in it, in float64.
        shapes: The shapes of the inputs that each layer got, by its name.
    """

    results: list[Tensor]
    shapes: dict[str, list[tuple[int, ...]]]


def observe(model: nn.Module, example: Any, forward: Forward | None, norms: Sequence[NormLayer] = ()) -> Seen:
    """Run a model on an example in evaluation mode, and leave it as it was."""
    shapes: dict[str, list[tuple[int, ...]]] = {}

    def note(name: str) -> Any:
        return lambda _, inputs: shapes.setdefault(name, []).append(tuple(inputs[0].shape)) if inputs else None

    with preserved(model), torch.no_grad():
        model.eval()
        for norm in norms:
            norm.module.register_forward_pre_hook(note(norm.name))
        results = [tensor.detach().double() for tensor in tensors_in(run_batch(model, example, forward))]
    return Seen(results, shapes)


def drift(before: Seen, after: Seen) -> Drift | None:
    """Return how far results moved; None where they cannot be compared, as their shapes differ."""
    pairs = list(zip(before.results, after.results, strict=False))
    same = len(before.results) == len(after.results) and all(one.shape == other.shape for one, other in pairs)
    if not same or not pairs:
        return None
    largest = max((float((one - other).abs().max()) for one, other in pairs if one.numel()), default=0.0)
    moved = sum(float((one - other).square().sum()) for one, other in pairs)
    size = sum(float(one.square().sum()) for one, _ in pairs)
    return Drift(largest, (moved / size) ** 0.5 if size else float(moved > 0) * float("inf"))
