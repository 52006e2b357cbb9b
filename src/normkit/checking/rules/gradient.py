"""The backward pass, held against differences of the target's own forward pass."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.gradients import GRADIENT_TOLERANCE, Backward, affine_slopes
from normkit.checking.measure.lab import Measurements
from normkit.checking.patterns import Values
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import Rule, UnmeasuredError
from normkit.checking.target.backward import CannotCallError, Gradients
from normkit.checking.target.errors import TargetError

_TOLERANCE = GRADIENT_TOLERANCE


class GradientRule(Rule):
    """A check that needs gradients."""

    core = True
    requires: ClassVar[tuple[str, ...]] = ("formula-wrong in training", "input-mutated in training")

    def not_applicable(self, probe: Measurements) -> str | None:
        try:
            if probe.backward.gradients is not None:
                return None
            if probe.wrapper is not None:
                raise UnmeasuredError(
                    f"it returns {probe.wrapper}, an object of its own, whose gradients are not followed"
                )
            return "it has no backward pass"
        except TargetError:
            return None


class StatisticsDetached(GradientRule):
    """The backward pass treats the mean or the variance as a constant.

    Why: The two terms that keep the gradient orthogonal to the mean and to x_hat are missing. Training then drives the
    weights before the layer to grow without bound, and often diverges.

    Fix: Leave ``detach``, ``no_grad``, ``.data`` and ``.item()`` out of the batch's mean and variance (they belong to
    the running update only); in a hand-written backward subtract both projections.
    """

    code = "statistics-detached"
    after: ClassVar[tuple[str, ...]] = ("affine-ignored", "train-uses-running-stats")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        formula = probe.formula
        assert formula is not None
        try:
            backward = probe.backward
        except TargetError:
            return  # gradient-wrong says it
        if backward.gradients is None or backward.gradients.dx is None:
            return
        dx = backward.gradients.dx
        if dx.shape != backward.x.shape or backward.error_of(dx) < _TOLERANCE:
            return
        weight = backward.affine.get("weight") if self.met("affine-ignored in training") else None
        g = probe.scaled(backward.dy, weight, None)
        if g is None:
            return
        x_hat = formula.apply(backward.x)
        rstd = x_hat / formula.deviation(backward.x)
        mean_term = formula.mean_over.average(g) if formula.subtract_mean else 0 * g
        var_term = x_hat * formula.var_over.average(g * x_hat)
        causes = {"the mean and the variance": g, "the variance": g - mean_term, "the mean": g - var_term}
        for what, inner in causes.items():
            scale = float(np.abs(dx).max()) + 1e-12
            if what == "the mean" and not formula.subtract_mean:
                continue
            if float(np.abs(dx - inner * rstd).max()) / scale < 5e-3:
                self.need("train-uses-running-stats")  # whose statistics are no part of the graph
                yield self.finding(
                    f"the backward pass treats {what} as constant",
                    f"dx equals that gradient to {number(float(np.abs(dx - inner * rstd).max()))}, and is off "
                    f"the slope of the forward pass by {backward.error_of(dx):.0%}",
                )
                return


class GradientWrong(GradientRule):
    """The backward pass is not the derivative of the forward pass.

    Why: Training follows another slope than the loss has; it may still go down, only worse.

    Fix: dx = weight / sqrt(var + eps) * (dy - mean(dy) - x_hat * mean(dy * x_hat)), dweight = sum(dy * x_hat),
    dbias = sum(dy); or leave it to autograd.
    """

    code = "gradient-wrong"
    requires: ClassVar[tuple[str, ...]] = (*GradientRule.requires, "statistics-detached")
    after: ClassVar[tuple[str, ...]] = ("affine-ignored",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        try:
            backward = probe.backward
        except TargetError as error:
            if isinstance(error.error, CannotCallError):
                raise UnmeasuredError(f"its backward pass could not be called: {error.error}") from error
            yield self.finding("the backward pass fails", str(error))
            return
        gradients = backward.gradients
        assert gradients is not None
        if gradients.dx is None:
            yield self.finding(
                "no gradient reaches the input", "the output does not require grad, or dx was not returned"
            )
            return
        wrong = []
        if gradients.dx.shape != backward.x.shape:
            wrong.append(f"dx has shape {gradients.dx.shape}, x {backward.x.shape}")
        elif (off := backward.error_of(gradients.dx)) > _TOLERANCE:
            wrong.append(f"dx is off by {off:.0%} along random directions")
        applied = self.met("affine-ignored in training")
        if applied:
            wrong += self._wrong_affine(probe, backward, gradients)
        if wrong:
            yield self.finding(
                f"the gradient is wrong: {wrong[0]}", "; ".join(wrong) + ", against differences of the forward pass"
            )
        elif not applied:
            self.need("affine-ignored in training")

    def _wrong_affine(self, probe: Measurements, backward: Backward, gradients: Gradients) -> Iterator[str]:
        """What is wrong with the gradients of weight and bias."""
        slopes_of = {role: affine_slopes(probe, backward, role) for role in backward.affine}
        unmatched = [  # the others are told by the numbers, whatever place or name they have
            role
            for role, slopes in slopes_of.items()
            if not any(_gap(values.reshape(-1), slopes) < _TOLERANCE for values in gradients.candidates)
        ]
        unnamed = [role for role in unmatched if role not in gradients.affine]
        left = [
            values
            for values in gradients.unnamed
            if any(values.size == slopes_of[role].size for role in unnamed)
            and not any(_gap(values.reshape(-1), slopes) < _TOLERANCE for slopes in slopes_of.values())
        ]
        if unnamed and len(left) == len(unnamed):
            yield f"the gradient of {' and '.join(unnamed)} is another one"
        for role in unmatched:
            slopes = slopes_of[role]
            if role not in gradients.affine:
                if role in backward.trainable:
                    yield f"no gradient reaches {role}"
                continue
            got = gradients.affine[role].reshape(-1)
            if got.size != slopes.size:
                yield f"d{role} has {got.size} entries, {role} {slopes.size}"
            elif (gap := _gap(got, slopes)) > _TOLERANCE:
                yield f"d{role} is off by {gap:.0%}"


def _gap(got: Values, slopes: Values) -> float:
    """The largest difference of a gradient from the slopes, relative to their size."""
    if got.size != slopes.size:
        return float(np.inf)
    return float(np.abs(got - slopes).max() / (np.abs(slopes).max() + 1e-12))


RULES = (StatisticsDetached, GradientWrong)
