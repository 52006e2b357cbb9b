"""Running statistics that are not those of the data: each layer has the first cause that fits."""

from statistics import median
from typing import ClassVar, Final

from normkit.model.diagnose.report import Finding, Layer, amount
from normkit.model.diagnose.rules.base import LEAST_SHARE, Case, Rule, most, named

OFF: Final = 0.1
"""Running statistics are wrong that shift the normalized values by more than this, and than those of a single batch."""
INVERTED: Final = 0.5
"""A weight of the new batch from which it looks as if the weight of the old value had been meant."""
_CARRIED: Final = 0.5
"""Other data shift the first layer; those behind it get its normalized values: their shift is a smaller part of its."""
_MOST: Final = 0.4
"""The least share of a cause that nothing but the distance of the statistics shows."""
RECALIBRATE: Final = "normkit.recalibrate(model, data)"


def is_off(layer: Layer) -> bool:
    """Whether the running statistics are farther from the data's than those of a single batch."""
    return layer.shift > max(OFF, layer.noise)


class StatisticsRule(Rule):
    """A cause of wrong running statistics. New ones mend the model, so the share that they close can be measured."""

    call = RECALIBRATE
    least_share: ClassVar[float] = LEAST_SHARE

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whether a layer whose statistics are wrong has this cause."""
        raise NotImplementedError

    def is_wrong(self, layer: Layer) -> bool:
        """Whether a layer's statistics are wrong in the way that this cause makes them wrong."""
        return is_off(layer)

    def number(self, layers: list[Layer]) -> str:
        """Return the number that shows it."""
        worst = most(layers, lambda layer: layer.shift)
        return (
            f"in {named(worst)} the normalized values are off by {amount(worst.shift)} standard deviations, by the "
            f"statistics of a single batch {amount(worst.noise)}"
        )

    def find(self, case: Case) -> Finding | None:
        """Return what was found, if new statistics close part of a gap."""
        causes = causes_of(case)
        layers = [layer for layer in case.layers if causes.get(layer.name) is type(self)]
        share = share_of(case, [layer.name for layer in layers], list(causes)) if layers else 0.0
        if not case.is_noticeable or share < self.least_share:
            return None
        return self.finding(layers, self.number(layers), share)


class NonfiniteStatistics(StatisticsRule):
    """A running mean or variance is NaN or infinite."""

    code = "nonfinite-statistics"
    what = "running statistics are NaN or infinite, so evaluation gives NaN whatever the input is"
    advice = "recalibrate; train in normkit.skip_nonfinite(model), which stores no batch with NaN or infinity"

    def is_wrong(self, layer: Layer) -> bool:
        """Whether a channel is not finite."""
        return layer.nonfinite > 0

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whatever is not finite."""
        return layer.nonfinite > 0

    def number(self, layers: list[Layer]) -> str:
        """Count the channels."""
        worst = most(layers, lambda layer: layer.nonfinite)
        return f"{worst.nonfinite} of {worst.channels} channels of {named(worst)} are NaN or infinite"


class InvertedMomentum(StatisticsRule):
    """The running statistics are nearly those of the last batch."""

    code = "momentum-inverted"
    what = "the running statistics are nearly those of the last batch: momentum looks inverted"
    advice = (
        "set momentum to 1 minus what it is: in PyTorch it is the weight of the new batch, elsewhere that of the old "
        "value; and recalibrate, as training alone mends the statistics slowly"
    )

    def is_wrong(self, layer: Layer) -> bool:
        """Whether they follow each batch; they are then as far off as those of a single batch."""
        return layer.momentum is not None and layer.momentum > INVERTED

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whether they follow each batch."""
        return self.is_wrong(layer)

    def number(self, layers: list[Layer]) -> str:
        """Say how much one batch weighs."""
        worst = most(layers, lambda layer: layer.momentum or 0.0)
        return f"one batch moves the statistics of {named(worst)} by {worst.momentum or 0.0:.0%} of the way to its own"

    def find(self, case: Case) -> Finding | None:
        """Return what was found, be there a gap now or not: the next training step makes one."""
        causes = causes_of(case)
        layers = [layer for layer in case.layers if causes.get(layer.name) is type(self)]
        if not layers:
            return None
        share = share_of(case, [layer.name for layer in layers], list(causes))
        return self.finding(layers, self.number(layers), share if case.is_noticeable else None)


class ZeroMomentum(StatisticsRule):
    """Training does not move the running statistics."""

    code = "momentum-zero"
    what = "the running statistics are wrong, and training does not move them"
    advice = "recalibrate; to train on, set momentum to 0.1, or to None for a plain average"

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whether a batch weighs nothing."""
        return layer.momentum is not None and abs(layer.momentum) < 1e-6

    def number(self, layers: list[Layer]) -> str:
        """Say that a batch moves nothing, and how far off that leaves them."""
        return f"a batch in training moves nothing; {super().number(layers)}"


class NeverUpdated(StatisticsRule):
    """The running statistics are those that a layer begins with."""

    code = "never-updated"
    what = "the running statistics are the initial ones: mean 0 and variance 1 in every channel"
    advice = (
        "recalibrate on training data. Averages of weights (EMA, SWA), checkpoints loaded with strict=False, and "
        "models that were trained in evaluation mode come without statistics"
    )

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whether they are 0 and 1 exactly."""
        return layer.initial


class DomainShift(StatisticsRule):
    """The data are others than those of the running statistics."""

    code = "domain-shift"
    least_share = _MOST
    what = "the data are of another distribution than those that the running statistics are of"
    advice = (
        "see whether these data are scaled as those of training. If they are another domain, recalibrate on them, and "
        "keep the old statistics for the old one"
    )

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whether the first layer is off, and those behind it, which get its normalized values, are much less."""
        first, *others = case.layers
        return is_off(first) and bool(others) and median(one.shift for one in others) < _CARRIED * first.shift

    def number(self, layers: list[Layer]) -> str:
        """Compare the first layer with the others."""
        first = layers[0]
        return (
            f"the first layer that sees the data, {named(first)}, is off by {amount(first.shift)} standard deviations, "
            "those behind it by less than half of that, as they get values that it has normalized"
        )


class StaleStatistics(StatisticsRule):
    """The running statistics are not those of these weights and data."""

    code = "stale-statistics"
    least_share = _MOST
    what = "the running statistics are not those that the model's weights give with these data"
    advice = (
        "recalibrate on training data. Usual reasons: weights that moved on since (a high learning rate, a momentum "
        "too small), averaged weights (EMA, SWA), a checkpoint of another step, data of another kind"
    )

    def concerns(self, layer: Layer, case: Case) -> bool:
        """Whatever has no other cause."""
        return True


RULES: Final = (NonfiniteStatistics, InvertedMomentum, ZeroMomentum, NeverUpdated, DomainShift, StaleStatistics)


def causes_of(case: Case) -> dict[str, type[StatisticsRule]]:
    """Return the cause of each layer whose statistics are wrong: the first that fits."""
    causes: dict[str, type[StatisticsRule]] = {}
    for layer in case.layers:
        for rule in RULES:
            if rule().is_wrong(layer) and rule().concerns(layer, case):
                causes[layer.name] = rule
                break
    return causes


def share_of(case: Case, names: list[str], every: list[str]) -> float:
    """Return the share of the gap that layers make: the mean of mending them first, and last of all that are wrong."""
    first = case.closed_by(names)
    others = [name for name in every if name not in names]
    return (first + case.closed_by(every) - case.closed_by(others)) / 2 if others else first
