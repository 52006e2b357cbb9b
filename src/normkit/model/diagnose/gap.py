"""The gap between two forms of a model, and which layer makes it."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from normkit.model.diagnose.forms import BATCH, Choice, Outputs, Runner
from normkit.model.diagnose.observe import Tracked


class Scale(NamedTuple):
    """The unit of all gaps: the standard deviation of each output over all batches, in training form."""

    stds: tuple[float, ...]

    def difference(self, ours: Outputs, theirs: Outputs) -> float:
        """Return how far apart outputs are: the root of their mean squared difference, in standard deviations.

        Infinite, where one is NaN or infinite and the other is not; what is neither in both is left out.
        """
        squares, count = 0.0, 0
        for batch, other in zip(ours, theirs, strict=False):
            for one, two, std in zip(batch, other, self.stds, strict=False):
                finite = one.values.isfinite()
                if not torch.equal(finite, two.values.isfinite()):
                    return math.inf
                apart = (one.values[finite] - two.values[finite]).double()
                squares += float(apart.square().sum()) / std**2
                count += apart.numel()
        return math.sqrt(squares / count) if count else 0.0


def scale_of(outputs: Outputs) -> Scale:
    """Return the unit for gaps to these outputs."""
    stds = []
    for column in zip(*outputs, strict=True):
        values = torch.cat([kept.values for kept in column]).double()
        stds.append(_std(values[values.isfinite()]))
    return Scale(tuple(stds))


def comparable(ours: Outputs, theirs: Outputs) -> bool:
    """Whether two forms return tensors of the same number and shapes, and any to measure by."""
    return any(kept.values.numel() for batch in ours for kept in batch) and all(
        [kept.shape for kept in one] == [kept.shape for kept in two] and len(one) == len(ours[0])
        for one, two in zip(ours, theirs, strict=True)
    )


class Part(NamedTuple):
    """A layer's part in the gap.

    Args:
        alone: How far the output moves if this layer alone normalizes by its batch.
        cumulative: The gap that is left if this layer and all before it do.
    """

    alone: float
    cumulative: float


def parts_of(
    runner: Runner, order: Sequence[Tracked], scale: Scale, evaluated: Outputs, trained: Outputs
) -> list[Part]:
    """Switch layers to batch statistics one at a time, and cumulatively from the input.

    Args:
        runner: Runs the batches; as many as ``evaluated`` has.
        order: The layers, in the order in which they run.
        scale: The unit.
        evaluated, trained: The outputs in both forms.
    """
    parts: list[Part] = []
    switched: dict[str, Choice] = {}
    for layer in order:
        switched[layer.name] = BATCH
        alone = runner.run({layer.name: BATCH}, most=len(evaluated))
        together = runner.run(switched, most=len(evaluated))
        parts.append(Part(scale.difference(alone, evaluated), scale.difference(together, trained)))
    return parts


def closed(before: float, after: float) -> float:
    """Return the share of a gap that a change closes, by squares: parts of independent causes then add up."""
    if math.isinf(before):
        return 0.0 if math.isinf(after) else 1.0
    return 1.0 - (after / before) ** 2 if before > 0.0 and math.isfinite(after) else 0.0


def _std(values: Tensor) -> float:
    return max(float(values.std(correction=0)), 1e-12) if values.numel() else 1.0
