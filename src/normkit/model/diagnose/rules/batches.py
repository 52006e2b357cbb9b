"""Batches by whose statistics a model cannot be evaluated: small, sorted, padded, or with NaN."""

import math
from typing import Final

from normkit.model.diagnose.forms import UNPADDED
from normkit.model.diagnose.gap import closed
from normkit.model.diagnose.report import Finding, amount
from normkit.model.diagnose.rules.base import LEAST_SHARE, Case, Rule, most, named
from normkit.model.diagnose.rules.statistics import causes_of

FEW: Final = 4
"""Samples behind a statistic that are few."""
_NOISY: Final = 0.25
"""Noise of batches of few samples, in standard deviations of the outputs, that is a cause of its own."""
_UNLIKE: Final = 3.0
"""Batch means that vary so many times as much as chance would have it are of batches that are not alike."""
_NOISY_UNLIKE: Final = 0.15
"""The noise of such batches that is a cause of its own."""
_LEAST_PADDED: Final = 0.05
_DILUTED: Final = 0.15


class NonfiniteInput(Rule):
    """NaN or infinity reaches a layer."""

    code = "nonfinite-input"
    what = "NaN or infinity reaches the layer, and would spoil its running statistics for good"
    advice = "find where they come from: the data, or the layer before; train in normkit.skip_nonfinite(model)"
    call = "normkit.skip_nonfinite(model)"

    def find(self, case: Case) -> Finding | None:
        """Return the first layer that they reach."""
        reached = [layer for layer in case.layers if layer.nonfinite_batches]
        if not reached:
            return None
        first = reached[0]
        return self.finding([first], f"in {first.nonfinite_batches} batches they reach {named(first)} first")


class NoisyBatches(Rule):
    """Part of the gap is left with the right statistics, because those of single batches are far from them."""

    def share(self, case: Case) -> float:
        """Return the part that statistics of all batches do not close."""
        return 1.0 - (case.closed_by(causes_of(case)) if causes_of(case) else 0.0)

    def is_noisy(self, case: Case, least: float) -> bool:
        """Whether there is noise to speak of: so many standard deviations of the outputs."""
        left = case.left_by(layer.name for layer in case.layers)
        return math.isfinite(left) and left > least and self.share(case) >= LEAST_SHARE


class SortedBatches(NoisyBatches):
    """Samples of a batch are alike."""

    code = "sorted-batches"
    what = "the batches are not alike: samples of one batch resemble each other, as if the data were sorted"
    advice = (
        "shuffle the data (DataLoader(…, shuffle=True)), and mix domains in each batch; then train again or "
        "normkit.recalibrate(model, shuffled)"
    )

    def find(self, case: Case) -> Finding | None:
        """Return what was found."""
        worst = most(case.layers, lambda layer: layer.between)
        if worst.between < _UNLIKE or not self.is_noisy(case, _NOISY_UNLIKE):
            return None
        number = (
            f"batch means of {named(worst)} vary {amount(worst.between)} times as much as those of shuffled batches"
        )
        return self.finding([worst], number, self.share(case))


class FewSamples(NoisyBatches):
    """A statistic is taken from few samples."""

    code = "few-samples"
    what = "the statistics of a batch come from few samples, so training normalizes by other values than evaluation"
    advice = (
        "train with larger batches, or freeze the norms once their statistics are right: training then normalizes as "
        "evaluation does. For a new training: normkit.convert(model, to='group')"
    )
    call = "normkit.recalibrate(model, data); normkit.freeze(model)"

    def find(self, case: Case) -> Finding | None:
        """Return what was found."""
        few = [layer for layer in case.layers if layer.samples <= FEW]
        if not few or not self.is_noisy(case, _NOISY) or SortedBatches().find(case):
            return None
        worst = most(few, lambda layer: layer.noise)
        samples = "one sample" if worst.samples == 1 else f"{worst.samples} samples"
        number = (
            f"{samples} and {worst.values} values a channel in {named(worst)}: the statistics of a batch move the "
            f"normalized values by {amount(worst.noise)} standard deviations"
        )
        return self.finding(few, number, self.share(case), self._call(case))

    def _call(self, case: Case) -> str | None:
        """With one sample a batch norm is an instance norm: as one, it evaluates as it was trained."""
        alone = all(layer.samples == 1 and layer.values > 1 and layer.kind == "batch" for layer in case.layers)
        return "normkit.convert(model, to='instance')" if alone else self.call


class Padding(Rule):
    """Padded positions count as data."""

    code = "padding"
    what = (
        "padded positions count as data: they dilute the statistics, by more the shorter the sequences of a batch are"
    )
    advice = "give the layer the mask or the lengths, as normkit.BatchNorm1d(…)(x, mask=mask); then recalibrate"
    call = None

    def find(self, case: Case) -> Finding | None:
        """Return what was found."""
        padded = [layer for layer in case.layers if layer.padded > _LEAST_PADDED and layer.padding_distance > _DILUTED]
        if not padded:
            return None
        worst = most(padded, lambda layer: layer.padding_distance)
        number = (
            f"{worst.padded:.0%} of the positions in {named(worst)} are padded, and move the normalized values by "
            f"{amount(worst.padding_distance)} standard deviations"
        )
        share = closed(case.gap, case.gap_by({layer.name: UNPADDED for layer in padded}, {}))
        return self.finding(padded, number, case.worth_telling(share))


RULES: Final = (NonfiniteInput, Padding, SortedBatches, FewSamples)
