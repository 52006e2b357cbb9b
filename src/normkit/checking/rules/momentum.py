"""Momentum: which of the two values it weighs, how much, and what None means."""

from collections.abc import Iterator
from typing import ClassVar

from normkit.checking.measure.lab import TEST_MOMENTUM, Measurements
from normkit.checking.measure.running_stats import Update, measure_update
from normkit.checking.report import Finding, number
from normkit.checking.rules.running import RunningRule, follows
from normkit.checking.target.errors import TargetError

_SHOWN = 4


class MomentumInverted(RunningRule):
    """The momentum argument weighs the old value where the convention weighs the new batch, or the reverse.

    Why: A momentum that was chosen for the other meaning counts as one minus itself. With one near 0 the running
    statistics are then hardly more than the last batch, and evaluation is noisy; with one near 1 they hardly move.

    Fix: torch: ``new = (1 - momentum) * old + momentum * batch``. Keras, Flax, ONNX: ``momentum * old + (1 - momentum)
    * batch``, with a momentum near 1.
    """

    code = "momentum-inverted"
    after: ClassVar[tuple[str, ...]] = ("wrong-axes",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        update, convention = probe.update, probe.convention
        assert update is not None
        weighs_old = probe.momentum_weighs_old
        if not follows(update.mean):
            self.need("wrong-axes")
        if weighs_old is None or update.mean is None:
            return
        declared = probe.builder.declared("momentum")
        shown = f"new = {number(update.mean[0])}·old + {number(update.mean[1])}·batch"
        shown += f" with momentum = {declared}" if isinstance(declared, float) else ""
        if weighs_old == convention.momentum_weighs_old:
            if probe.convention_name != "torch" and probe.options.convention is None:
                yield self.finding(
                    f"momentum weighs the old value, as in {convention.title}",
                    f"{shown}; in torch it weighs the batch",
                    severity="note",
                )
            return
        harmless = probe.options.convention is None and update.mean[1] < 0.5
        harmless = harmless or (probe.options.convention is None and probe.builder.momentum_required)
        what = "old value" if weighs_old else "new batch"
        yield self.finding(
            f"momentum weighs the {what}" + (", as in Keras, Flax and ONNX" if harmless and weighs_old else ""),
            shown,
            severity="note" if harmless else "error",
        )


class MomentumDiffers(RunningRule):
    """The running average has other coefficients than the convention's.

    Why: If the two do not add up to one the statistics drift to a wrong level; if mean and variance use different
    ones they describe different data; another default averages over more or fewer batches.

    Fix: One momentum for both, coefficients that add up to one, torch's default 0.1.
    """

    code = "momentum-differs"
    core = True
    requires: ClassVar[tuple[str, ...]] = (*RunningRule.requires, "momentum-inverted", "running-var-wrong")
    after: ClassVar[tuple[str, ...]] = ("wrong-axes", "not-deterministic")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        update = probe.update
        assert update is not None
        if not follows(update.mean):
            self.need("wrong-axes", "not-deterministic in training")  # over other axes the batch has other means
        if update.mean is None:
            yield self.finding(
                "the running mean follows no average of batch means",
                "no a, b make new = a·old + b·mean for four batches",
            )
            return
        if "running_var" not in probe.state or update.var is None:
            return
        if update.weights == "cumulative":
            yield from self._cumulative(probe)
            return
        if update.weights == "changing":
            yield self.finding("the weight of a batch changes from step to step", _changes_in_words(update))
            return
        (a, b), (c, d) = update.mean, update.var
        measured = f"mean: {number(a)}·old + {number(b)}·batch; variance: {number(c)}·old + {number(d)}·batch"
        if abs(a + b - 1) > 2e-3 or abs(c + d - 1) > 5e-3:
            yield self.finding("the coefficients of the running average do not add up to one", measured)
        elif abs(b - d) > 5e-3:
            yield self.finding("mean and variance are averaged with different momentum", measured)
        elif probe.builder.accepts("momentum") and probe.momentum_ignored:
            yield self.finding("the momentum argument is ignored", f"given {TEST_MOMENTUM}, measured {measured}")
        else:
            yield from self._default(probe, b, measured)

    def _cumulative(self, probe: Measurements) -> Iterator[Finding]:
        """The plain average over all batches: what momentum = None means."""
        if probe.builder.is_instance:
            return
        other = probe.update_with_test_momentum
        if other is not None and other.weights == "cumulative":
            yield self.finding(
                "the momentum argument is ignored: all batches are averaged plainly",
                f"given {TEST_MOMENTUM}, the n-th batch weighs 1 / n",
            )
        elif probe.options.init.get("momentum", TEST_MOMENTUM) is not None:  # what was asked for is no deviation
            yield self.finding(
                f"averages all batches plainly, as momentum=None does in {probe.reference_layer}",
                "the n-th batch weighs 1 / n; by default torch's weighs 0.1",
                severity="note",
            )

    def _default(self, probe: Measurements, b: float, measured: str) -> Iterator[Finding]:
        if probe.builder.is_instance:
            return
        accepts = probe.builder.accepts("momentum")
        if accepts and probe.builder.declared("momentum") is None:
            return
        convention = probe.convention
        usual = 1 - convention.momentum if convention.momentum_weighs_old else convention.momentum
        if min(abs(b - usual), abs(b - 0.1)) > 1e-3:
            yield self.finding(
                f"by default a batch weighs {number(b)}, {number(usual)} in {convention.title}",
                measured,
                severity="note" if accepts else "warning",
            )


class MomentumNone(RunningRule):
    """momentum=None is taken but does not give the cumulative average.

    Why: In torch None means the plain average over all batches so far, which recalibration relies on.

    Fix: Count the batches and use momentum = 1 / num_batches_tracked when it is None.
    """

    code = "momentum-none"
    families: ClassVar[tuple[str, ...]] = ("batch",)
    requires: ClassVar[tuple[str, ...]] = (*RunningRule.requires, "momentum-differs", "wrong-axes")

    def not_applicable(self, probe: Measurements) -> str | None:
        if not probe.builder.is_class or not probe.builder.accepts("momentum"):
            return "its constructor takes no momentum"
        return super().not_applicable(probe)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        try:
            update = measure_update(probe, momentum=None)
        except TargetError:
            return  # refusing it is clear; only a wrong average is a fault
        if update.weights != "cumulative":
            yield self.finding("momentum=None gives no cumulative average", _weights_in_words(update))


def _changes_in_words(update: Update) -> str:
    first = ", ".join(map(number, update.batch_weights[:_SHOWN]))
    count = len(update.batch_weights)
    last = f"; the {count}th {number(update.batch_weights[-1])}" if count > _SHOWN else ""
    return f"batch after batch weighs {first}{last}"


def _weights_in_words(update: Update) -> str:
    if update.mean is None:
        return "no a, b make new = a·old + b·batch"
    listed = ", ".join(map(number, update.batch_weights[:_SHOWN]))
    return f"batch after batch weighs {listed}; expected 1, 0.5, 0.3333, 0.25"


RULES = (MomentumInverted, MomentumDiffers, MomentumNone)
