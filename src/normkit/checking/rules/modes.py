"""Training and evaluation: which statistics are used, which are updated, and what switches between the two."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.report import MODES, Finding, number
from normkit.checking.rules.base import Rule, UnmeasuredError

NO_EVALUATION = "no evaluation was found: no argument, attribute or method makes it use the running statistics"


class ModeRule(Rule):
    """A check that needs running statistics."""

    families: ClassVar[tuple[str, ...]] = ("batch", "instance")

    def not_applicable(self, probe: Measurements) -> str | None:
        return "it keeps no running statistics" if not probe.state else None


class EvaluationRule(ModeRule):
    """A check that needs an evaluation mode."""

    def not_applicable(self, probe: Measurements) -> str | None:
        if not probe.has_evaluation:
            return NO_EVALUATION
        return super().not_applicable(probe)


class TrainUsesRunningStats(ModeRule):
    """Training normalizes by the running statistics instead of the batch's.

    Why: The output is not normalized until the averages catch up, and no gradient flows through mean and variance.

    Fix: In training use the mean and variance of this batch; the running ones are for evaluation only.
    """

    code = "train-uses-running-stats"
    core = True
    requires: ClassVar[tuple[str, ...]] = ("not-deterministic in training",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        if probe.training_uses_state > 1e-3:
            yield self.finding(
                "training normalizes by what it keeps of earlier batches",
                "one input, with other batches before it or with other running statistics: training outputs differ by "
                f"{number(probe.training_uses_state)}",
            )


class EvalIgnoresRunningStats(ModeRule):
    """Evaluation does not use the running statistics.

    Why: A sample's result then depends on the rest of its batch, and a batch of one gives zeros.

    Fix: In evaluation: ``(x - running_mean) / sqrt(running_var + eps) * weight + bias``.
    """

    code = "eval-ignores-running-stats"
    core = True
    requires: ClassVar[tuple[str, ...]] = ("output-shape", "not-deterministic", "formula-wrong in training")
    after: ClassVar[tuple[str, ...]] = ("wrong-axes", "eps-missing", "eps-misplaced", "running-var-wrong")

    def not_applicable(self, probe: Measurements) -> str | None:
        if probe.state and not probe.has_evaluation:
            raise UnmeasuredError(NO_EVALUATION)
        if not probe.state and probe.evaluation.statistics != "batch":
            raise UnmeasuredError("evaluation does not use the statistics of its input, and no others were found")
        if probe.state and not probe.has_evaluation:
            raise UnmeasuredError("no argument, attribute or method was found that makes it use its running statistics")
        return super().not_applicable(probe)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        evaluation = probe.evaluation
        if evaluation.statistics == "running":
            return
        if (
            evaluation.statistics == "other"
        ):  # than the definition, over the family's axes, eps in its place, a variance as the running variance
            self.need(*self.after)
        messages = {
            "batch": "evaluation normalizes by the batch's statistics, not by the running ones",
            "nothing": "evaluation returns its input unchanged",
            "other": "evaluation computes something other than (x - running_mean) / sqrt(running_var + eps)",
        }
        yield self.finding(
            messages[evaluation.statistics],
            f"after three batches, differs from the definition by {number(evaluation.residual)}",
        )


class RunningStatsUpdatedInEval(EvaluationRule):
    """Evaluation changes the running statistics.

    Why: Validation data leaks into the model, and evaluating twice gives two results.

    Fix: Update them in training only.
    """

    code = "running-stats-updated-in-eval"
    requires: ClassVar[tuple[str, ...]] = ("running-stats-not-updated", "running-stats-frozen")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        layer = probe.train(steps=1)
        before = layer.read(*probe.state)
        probe.forward(layer, probe.x(seed=9) * 2 + 5, training=False)
        after = layer.read(*probe.state)
        changes = {role: float(np.abs(after[role] - before[role]).max()) for role in before if role in after}
        changed = [role for role, change in changes.items() if change > 0]
        if changed:
            yield self.finding(
                f"evaluation changes {' and '.join(changed)}",
                "; ".join(f"{role} moved by {number(changes[role])} in one evaluation call" for role in changed),
            )


class ModeByGrad(ModeRule):
    """It switches on the grad mode instead of on training and evaluation.

    Why: ``model.eval()`` without ``no_grad`` normalizes by the batch and updates the running statistics; training code
    under ``no_grad`` (recalibration, a GAN's fake batch) silently uses the running ones.

    Fix: Switch on ``self.training`` (or an argument ``training``), never on ``torch.is_grad_enabled()``.
    """

    code = "mode-by-grad"
    requires: ClassVar[tuple[str, ...]] = ("not-deterministic",)

    def not_applicable(self, probe: Measurements) -> str | None:
        return super().not_applicable(probe) if probe.library.records_graph else "only torch has a grad mode"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        gaps = dict(self.each_mode(lambda training: self._gap(probe, training=training)))
        for mode in reversed(MODES):
            if gaps.get(mode, 0.0) > 1e-3:
                yield self.finding(
                    "switches on the grad mode, not on training and evaluation",
                    f"in {mode} the output changes by {number(gaps[mode])} when torch.no_grad() is entered",
                )
                return

    def _gap(self, probe: Measurements, *, training: bool) -> float:
        """The largest difference between outputs with and without recording of gradients."""
        x = probe.x(seed=5) * 2 + 3
        with_grad, without = (probe.forward(probe.train(), x, training=training, grad=grad) for grad in (True, False))
        return float(np.abs(with_grad - without).max())


RULES = (TrainUsesRunningStats, EvalIgnoresRunningStats, RunningStatsUpdatedInEval, ModeByGrad)
