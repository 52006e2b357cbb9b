"""The formula: (x - mean) / sqrt(var + eps), with the biased variance and eps in its place."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.formula import Formula, fit
from normkit.checking.measure.lab import Measurements
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import BASIC, Rule, UnmeasuredError, shared
from normkit.checking.target.errors import TargetError

_FLOAT32_EPS = 1.1920929e-07
_TEST_EPS = 0.03


class FormulaRule(Rule):
    """A check that needs the formula."""

    requires: ClassVar[tuple[str, ...]] = ("formula-wrong in training",)


class FormulaWrong(Rule):
    """The output is not (x - mean) / sqrt(var + eps), whatever eps is.

    Why: It is another operation than the one its name promises.

    Fix: Compare with the definition: subtract the mean (not for RMS), divide by the square root of the variance plus
    eps, where the variance is the mean of squared deviations.
    """

    code = "formula-wrong"
    core = True
    requires: ClassVar[tuple[str, ...]] = BASIC
    after: ClassVar[tuple[str, ...]] = ("train-uses-running-stats", "output-shape", "not-deterministic")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        formula = probe.formula
        if (
            not probe.gives_numbers
            or formula is None
            or not formula.fits
            or formula.subtract_mean != (probe.family != "rms")
        ):
            self.need("train-uses-running-stats")  # which explains another formula
            yield self._training(probe, formula)
        elif probe.family not in ("batch", "instance"):
            yield from self._evaluation(probe)

    def _training(self, probe: Measurements, formula: Formula | None) -> Finding:
        if not probe.gives_numbers:
            return self.finding("gives NaN or infinity for an ordinary input", "noise of mean 0.5 and deviation 2")
        if formula is None and not probe.applies_relu:
            raise UnmeasuredError("what it averages over could not be told")
        if formula is None:
            return self.finding(
                "sets what is negative after normalizing to zero, as ReLU does",
                "the other outputs equal the definition",
                fix="Leave the activation to a layer of its own, or compare the layer without it.",
            )
        if not formula.fits:
            return self.finding(self._message(probe), f"the best fit leaves a difference of {number(formula.residual)}")
        if formula.subtract_mean:
            return self.finding(
                "subtracts the mean, which RMS normalization does not",
                "adding a constant to the input leaves the output unchanged",
            )
        return self.finding(
            "does not subtract the mean: it divides by the root of the mean square",
            f"as RMS normalization it fits to {number(formula.residual)}",
            fix="Subtract the mean. If it is meant to be RMS normalization in spite of its name, pass --as rms.",
        )

    def _evaluation(self, probe: Measurements) -> Iterator[Finding]:
        """Without running statistics evaluation does what training does."""
        self.need(*self.after, modes=["evaluation"])
        for mode, evaluation in self.each_mode(lambda training: probe.evaluation, ["evaluation"]):
            if evaluation.statistics != "batch":
                unchanged = evaluation.statistics == "nothing"
                yield self.finding(
                    f"{'returns its input unchanged' if unchanged else 'computes something else'} in evaluation",
                    "after three batches, differs from what training computes",
                    fix="Do the same in training and in evaluation: there are no running statistics here.",
                    mode=mode,
                )

    def _message(self, probe: Measurements) -> str:
        formula = probe.formula
        assert formula is not None
        x = probe.x() - probe.x().mean()
        small, large = (np.abs(probe.forward(probe.layer(), probe.cast(x * scale))).max() for scale in (1.0, 10.0))
        power = round(float(np.log10(large / small)), 1) if small > 0 and np.isfinite(large / small) else 0.0
        if power == -1.0:
            return "divides by the variance, not by its square root"
        if power == 1.0:
            return "does not divide by the standard deviation"
        if abs(formula.scale * np.sqrt(formula.var_over.count) - 1) < 5e-3:
            return "divides by the root of the sum of squares, not of their mean"
        if abs(formula.scale - 1) > 1e-3 and np.isfinite(formula.residual):
            return f"the output is {number(formula.scale)} times the normalized input"
        return "computes another formula than (x - mean) / sqrt(var + eps)"


def eps_of(probe: Measurements, *, training: bool) -> tuple[str, float] | None:
    """Return the place and the size of eps in a mode; None where evaluation has none of its own."""
    if training:
        formula = probe.formula
        assert formula is not None
        return formula.eps_place, formula.eps
    if not probe.state or probe.evaluation.eps_place is None:
        return None
    return probe.evaluation.eps_place, probe.evaluation.eps or 0.0


class UnbiasedNormalization(FormulaRule):
    """The normalization divides by the unbiased variance, n - 1 rather than n.

    Why: All normalization layers use the biased variance. With n values a statistic the output is smaller by
    sqrt((n - 1) / n), which for small batches or few features is far more than rounding.

    Fix: ``x.var(..., correction=0)`` in torch (its default is the unbiased one), ``ddof=0`` in NumPy.
    """

    code = "unbiased-normalization"

    def not_applicable(self, probe: Measurements) -> str | None:
        return "the scale that its further inputs give hides it" if probe.undoes else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        formula = probe.formula
        assert formula is not None
        if formula.ddof == 1:
            n = formula.var_over.count
            yield self.finding(
                "normalizes by the unbiased variance",
                f"with n = {n}: output {number(np.sqrt((n - 1) / n))} times the biased definition, "
                f"which is sqrt((n - 1) / n); as unbiased it fits to {number(formula.residual)}",
            )


class EpsMisplaced(FormulaRule):
    """Eps is not inside the square root, added to the variance.

    Why: 1e-5 outside the root is like 1e-10 inside it: channels that hardly vary are blown up a hundredfold.

    Fix: ``(x - mean) / sqrt(var + eps)``.
    """

    code = "eps-misplaced"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        words = {"outside": "sqrt(var) + eps", "clamp": "sqrt(max(var, eps))"}
        measured = self.each_mode(lambda training: eps_of(probe, training=training))
        found = {mode: where for mode, where in measured if where is not None and where[0] in words}
        if found:
            place, eps = next(iter(found.values()))
            variance = 1e-12 if place == "outside" else eps
            actual = np.sqrt(variance) + eps if place == "outside" else np.sqrt(eps)
            yield self.finding(
                f"eps is outside the square root: {words[place]}"
                if place == "outside"
                else f"eps is a floor: {words[place]}",
                f"in {' and '.join(found)}; a variance of {number(variance)} is divided by {number(actual)}, "
                f"the definition by {number(np.sqrt(variance + eps))}",
                mode=shared(found),
            )


class EpsMissing(FormulaRule):
    """There is no eps: a constant input divides by zero.

    Why: One dead channel, an all-zero image or a padded sample turns into NaN, and the loss with it.

    Fix: Add eps to the variance before the square root, in training and in evaluation.
    """

    code = "eps-missing"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        places = {mode: eps[0] for mode, eps in self.each_mode(lambda t: eps_of(probe, training=t)) if eps is not None}
        if places["training"] == "missing":
            flat = np.zeros(probe.geometry.shape(probe.rank))
            mode = shared([mode for mode, place in places.items() if place == "missing"])
            try:
                y = probe.forward(probe.layer(), flat)
            except TargetError as error:
                yield self.finding("fails on a constant input", str(error), mode=mode)
                return
            if not np.isfinite(y).all():
                share = float(np.mean(~np.isfinite(y)))
                evidence = f"an all-zero input gives {share:.0%} NaN or infinite outputs"
                yield self.finding("there is no eps", evidence, mode=mode)
        elif places.get("evaluation") == "missing" and not averages_eps(probe):
            yield self.finding(
                "there is no eps in evaluation",
                "a running variance of 1e-9 is divided by its plain root",
                mode="evaluation",
            )


class EpsDiffers(FormulaRule):
    """Eps is not what its argument says, or not the usual default.

    Why: Pretrained weights and running variances fit one eps; with another, channels that vary little are scaled
    differently. An argument that is ignored misleads.

    Fix: Use the argument as it is, in training and evaluation, with the default of torch's layer.
    """

    code = "eps-differs"
    severity = "note"
    requires: ClassVar[tuple[str, ...]] = (
        *FormulaRule.requires,
        "eps-misplaced in training",
        "eps-missing in training",
    )
    after: ClassVar[tuple[str, ...]] = ("eps-misplaced", "eps-missing")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        formula = probe.formula
        assert formula is not None
        if probe.builder.accepts("eps") and not probe.builder.is_instance:
            given = fit(
                probe,
                formula.mean_over,
                formula.var_over,
                subtract_mean=formula.subtract_mean,
                eps=_TEST_EPS,
            )
            actual = given.eps
            if not _has_eps(probe, given, _TEST_EPS):
                what = "enters squared" if abs(actual / _TEST_EPS**2 - 1) < 0.05 else "is ignored"
                yield self.finding(
                    f"the eps argument {what}",
                    f"given {_TEST_EPS}, measured {number(actual)}",
                    severity="error",
                    fix="Add the argument itself to the variance.",
                )
                return
        yield from self._default(probe, formula)
        self.need(*self.after)
        evaluation = probe.evaluation.eps if probe.state else None
        differs = evaluation is not None and abs(evaluation - formula.eps) > 0.02 * max(formula.eps, evaluation)
        if evaluation is not None and differs and not (evaluation == 0.0 and averages_eps(probe)):
            yield self.finding(
                f"evaluation uses eps = {number(evaluation)}, training {number(formula.eps)}",
                "read off the denominators in both modes",
                severity="error",
                fix="Use one eps in both.",
            )

    def _default(self, probe: Measurements, formula: Formula) -> Iterator[Finding]:
        """The value by itself, against that of the twin."""
        usual = probe.convention.eps if probe.family == "batch" else _FLOAT32_EPS if probe.family == "rms" else 1e-5
        if probe.builder.is_instance or _has_eps(probe, formula, usual) or formula.eps == 0.0:
            return
        settable = probe.builder.accepts("eps")
        if settable and probe.builder.declared("eps") is None:
            return
        yield self.finding(
            f"eps is {number(formula.eps)}, {probe.reference_layer} has {number(usual)}",
            "the default of its argument, as measured" if settable else "measured; no argument changes it",
            severity="note" if settable else "warning",
        )


def _has_eps(probe: Measurements, formula: Formula, wanted: float) -> bool:
    """Whether eps is the wanted one; where a further scale hides it, the variance may be the unbiased one."""
    n = formula.var_over.count
    factors = (1.0, n / (n - 1)) if probe.undoes and n > 1 else (1.0,)
    return any(abs(formula.eps * factor / wanted - 1) <= 0.02 for factor in factors)


def averages_eps(probe: Measurements) -> bool:
    """Whether eps is in the running variance itself: a constant batch then moves it away from zero."""
    layer = probe.train(steps=1)
    layer.write(running_mean=np.zeros(1), running_var=np.zeros(1))
    flat = np.zeros(probe.geometry.shape(probe.rank))
    try:
        probe.forward(layer, flat)
        return bool(np.isfinite(probe.forward(layer, flat, training=False)).all())
    except TargetError:
        return False


RULES = (FormulaWrong, UnbiasedNormalization, EpsMissing, EpsMisplaced, EpsDiffers)
