"""The running statistics: kept at all, initial values, updated, biased or not."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.measure.running_stats import Step, Update
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import Rule
from normkit.checking.target.errors import TargetError
from normkit.checking.target.state import RUNNING


def follows(step: Step | None) -> bool:
    """Whether a running average moves with the statistic of the batch, channel by channel."""
    return step is not None and abs(step[1]) > 1e-6


_ADDS_UP = 1e-3


class RunningRule(Rule):
    """A check that needs running statistics."""

    requires: ClassVar[tuple[str, ...]] = ("running-stats-not-updated", "running-stats-frozen")
    families: ClassVar[tuple[str, ...]] = ("batch", "instance")

    def not_applicable(self, probe: Measurements) -> str | None:
        if not probe.state:
            return "it keeps no running statistics"
        return "it keeps sums, which evaluation divides" if self._keeps_sums(probe) else None

    def _keeps_sums(self, probe: Measurements) -> bool:
        """Whether evaluation is right although what training adds up is no average."""
        try:
            update = probe.update
            adds_up = update is not None and update.mean is not None and abs(update.mean[0] - 1) < _ADDS_UP
            return adds_up and probe.evaluation.by_effect
        except TargetError:
            return False


class RunningStatsMissing(Rule):
    """It keeps no running statistics.

    Why: Evaluation then depends on what else is in the batch, and a batch of one cannot be normalized. It equals
    ``track_running_stats=False``.

    Fix: Keep a running mean and variance, update them in training, use them in evaluation.
    """

    code = "running-stats-missing"
    severity = "warning"
    families: ClassVar[tuple[str, ...]] = ("batch",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return "an instance may do without" if probe.builder.is_instance else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        missing = [role for role in ("running_mean", "running_var") if role not in probe.state]
        if missing:
            nothing = "nothing else" if probe.state else "nothing"
            yield self.finding(
                "keeps no running statistics" if len(missing) == 2 else f"keeps no {missing[0]}",
                f"{nothing} that it keeps is moved by training and used in evaluation",
            )


class RunningStatsInit(RunningRule):
    """The running statistics do not start at mean 0 and variance 1.

    Why: With a variance that starts at 0, evaluation early in training divides by nearly nothing; every other start
    gives other running values for the same data.

    Fix: Start with zeros for the mean and ones for the variance.
    """

    code = "running-stats-init"
    requires: ClassVar[tuple[str, ...]] = ()

    def not_applicable(self, probe: Measurements) -> str | None:
        if probe.builder.is_instance:
            return "an instance may have been trained"
        if probe.builder.kind == "function" and probe.builder.call().name_of("running_mean"):
            return "the caller of a function chooses the initial values"
        return super().not_applicable(probe)

    def _negligible(self, probe: Measurements) -> float:
        """A difference of the start that changes less than twice eps does: 1 - eps is one."""
        try:
            formula = probe.formula
        except TargetError:
            formula = None
        return max(2 * formula.eps if formula else 0.0, 1e-5)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        held = probe.layer(neutral=False).read(*RUNNING)
        initial = {role: values for role, values in held.items() if np.isfinite(values).all()}  # NaN was never set
        if len(initial) < len(probe.state):
            self.need("wrong-axes in training")
            initial = {**self._update(probe).initial, **initial}
        wrong = []
        for role, start in (("running_mean", 0.0), ("running_var", 1.0)):
            values = None if role == "running_var" and self._is_no_average(probe) else initial.get(role)
            if values is not None and np.abs(values - start).max(initial=0.0) > self._negligible(probe):
                wrong.append(f"{role} starts at {number(float(values.reshape(-1)[0]))} rather than {number(start)}")
        if wrong and not self._replaced(probe):
            yield self.finding(wrong[0], "; ".join(wrong) + ", read before the first batch")
        else:
            yield from self._first_batch(self._update(probe), probe)

    def _is_no_average(self, probe: Measurements) -> bool:
        """Whether what is kept as the running variance is something else, such as a sum: it has another start."""
        try:
            return self._update(probe).var is None
        except TargetError:
            return False

    def _replaced(self, probe: Measurements) -> bool:
        """Whether the first batch takes the place of the initial values; not where a second one cannot be taken."""
        try:
            update = self._update(probe)
        except TargetError:
            return False
        return update.first_replaces or update.weights == "cumulative"

    def _update(self, probe: Measurements) -> Update:
        update = probe.update
        assert update is not None
        return update

    def _first_batch(self, update: Update, probe: Measurements) -> Iterator[Finding]:
        """The first batch may replace what was there before it, or make it."""
        if update.first_replaces or len(update.initial) < len(probe.state):
            how = "is set from the first batch" if update.first_replaces else "does not exist before the first batch"
            missing = sorted(set(probe.state) - set(update.initial))
            if missing or update.first_replaces:
                yield self.finding(
                    f"the running average {how}",
                    f"after one batch running_mean equals the batch's mean: {update.first_replaces}; "
                    f"absent before it: {', '.join(missing) or 'none'}",
                    severity="warning",
                )


class RunningStatsNotUpdated(RunningRule):
    """Training does not update the running statistics.

    Why: Evaluation normalizes by the initial values, so the model is good in training and useless in evaluation.

    Fix: Assign the new values to what is kept: ``self.running_mean = ...`` (not a local name), or ``copy_``.
    """

    code = "running-stats-not-updated"
    core = True
    requires: ClassVar[tuple[str, ...]] = ()

    def check(self, probe: Measurements) -> Iterator[Finding]:
        update = probe.update
        assert update is not None
        still = [role for role in probe.unchanged_stats if role not in update.written]
        if still:
            yield self.finding(
                f"training leaves {' and '.join(still)} as {'they are' if len(still) == 2 else 'it is'}",
                f"after four batches with means up to 6: {', '.join(still)} unchanged and never assigned",
            )


class RunningStatsFrozen(RunningRule):
    """The update writes the old value back: it uses the old value twice and the batch not at all.

    Why: The running statistics are assigned in every step and never move; evaluation uses the initial values.

    Fix: ``new = (1 - momentum) * old + momentum * batch``: the second term takes the statistics of the batch.
    """

    code = "running-stats-frozen"
    core = True
    requires: ClassVar[tuple[str, ...]] = ()

    def check(self, probe: Measurements) -> Iterator[Finding]:
        update = probe.update
        assert update is not None
        frozen = [role for role in probe.unchanged_stats if role in update.written]
        if frozen:
            yield self.finding(
                f"{' and '.join(frozen)} {'are' if len(frozen) == 2 else 'is'} written in every step but never moves",
                f"new = 1·old + 0·batch over four batches for {', '.join(frozen)}",
            )


class BiasedRunningVar(RunningRule):
    """The running variance follows the biased variance of the batch, not the unbiased one.

    Why: torch stores the unbiased variance, n / (n - 1) times larger. With few values a channel the evaluation output
    differs by half that factor.

    Fix: Multiply by n / (n - 1) before updating the running variance; keep the biased one for normalizing.
    """

    code = "biased-running-var"
    requires: ClassVar[tuple[str, ...]] = (*RunningRule.requires, "running-var-wrong")
    after: ClassVar[tuple[str, ...]] = ("wrong-axes",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        update, convention = probe.update, probe.convention
        assert update is not None
        if not follows(update.var):
            self.need("wrong-axes")
            return
        if not update.unbiased and self._averages_over_others(probe):  # it may count other numbers
            self.need("wrong-axes")
        if update.unbiased == convention.unbiased_running:
            if not update.unbiased and probe.options.convention is None:
                yield self.finding(
                    f"the running variance is biased, as in {convention.title}",
                    "torch stores the unbiased one",
                    severity="note",
                )
            return
        n = probe.expected()[0].count
        kind = "unbiased" if update.unbiased else "biased"
        evidence = f"the running variance moves by {number(update.factor)} times the batch's biased variance; "
        evidence += f"n / (n - 1) is {number(n / (n - 1))} for n = {n}"
        yield self.finding(f"the running variance is {kind}, which {convention.title}'s is not", evidence)

    def _averages_over_others(self, probe: Measurements) -> bool:
        """Whether the axes are known, and are not the family's."""
        try:
            return probe.pattern() is not None and not probe.as_expected()
        except TargetError:
            return False


class RunningVarWrong(RunningRule):
    """What is kept as the running variance is no average of variances.

    Why: Evaluation divides by the square root of something else.

    Fix: Average the variance itself, in the same way as the mean.
    """

    code = "running-var-wrong"
    core = True
    requires: ClassVar[tuple[str, ...]] = (*RunningRule.requires, "not-deterministic in training")
    after: ClassVar[tuple[str, ...]] = ("wrong-axes",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        update = probe.update
        assert update is not None
        if "running_var" not in probe.state:
            return
        n = probe.expected()[0].count
        if update.of_std:
            yield self.finding(
                "the running variance averages the standard deviation", "new = a·old + b·std fits exactly"
            )
            return
        if not follows(update.var):
            self.need("wrong-axes")  # over other axes the batch has other variances
        if update.var is None:
            yield self.finding(
                "the running variance follows no average of batch variances",
                "no a, b make new = a·old + b·var for four batches",
            )
        elif (
            update.mean is not None
            and update.weights == "constant"
            and min(abs(update.factor - 1), abs(update.factor - n / (n - 1))) > 4e-3
            and abs(sum(update.mean) - 1) < 1e-3
            and abs(sum(update.var) - 1) > 1e-3
            and abs(update.var[0] - update.mean[0]) < 1e-3
        ):
            yield self.finding(
                f"the running variance follows {number(update.factor)} times the batch's variance",
                f"n = {n}: the biased variance would be 1 times, the unbiased {number(n / (n - 1))} times",
            )


RULES = (
    RunningStatsMissing,
    RunningStatsNotUpdated,
    RunningStatsFrozen,
    RunningStatsInit,
    RunningVarWrong,
    BiasedRunningVar,
)
