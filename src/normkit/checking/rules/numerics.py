"""Precision: large means, half-precision dtypes, the order of rounding."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.patterns import Values
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import Rule
from normkit.checking.target.arrays import TORCH


def _error(probe: Measurements, values: Values, dtype: str) -> float:
    """The largest difference from the formula, evaluated in float64 on the rounded input."""
    formula = probe.formula
    assert formula is not None
    x = probe.library.make(values, dtype)
    y = probe.undo(probe.library.values(probe.run(probe.layer_as(dtype), x)))
    gap = np.abs(y - formula.apply(probe.library.values(x)))
    return float(np.inf if not np.isfinite(gap).all() else gap.max())


class PrecisionRule(Rule):
    """A check that holds outputs against the formula."""

    requires: ClassVar[tuple[str, ...]] = ("formula-wrong in training", "eps-missing in training")


class Cancellation(PrecisionRule):
    """The variance loses its digits when the mean is large: it is computed as E[x²] - E[x]².

    Why: In float32 both terms agree in all their digits once the mean is a few thousand standard deviations, as for
    raw pixels, temperatures, timestamps or a ReLU's rare channel; the difference is noise, or negative, then NaN.

    Fix: Two passes, ``((x - mean) ** 2).mean()``, or Welford's and Chan's updates.
    """

    code = "cancellation"
    families: ClassVar[tuple[str, ...]] = ("batch", "layer", "group", "instance")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        noise = np.random.default_rng(31).normal(size=probe.geometry.shape(probe.rank))
        errors = {ratio: _error(probe, noise + ratio, "float32") for ratio in (1e2, 1e3, 1e4)}
        if errors[1e4] > 0.05:
            listed = ", ".join(f"{number(error)} at {ratio:.0e}" for ratio, error in errors.items())
            yield self.finding(
                "loses the variance when the mean is large",
                f"float32, output error by mean / std: {listed.replace('e+0', 'e')}",
            )


class HalfAccumulation(PrecisionRule):
    """Statistics are computed in half precision.

    Why: A bfloat16 mean has three digits, and a float16 square overflows above 255: outputs are off by far more than
    their own rounding, or all zero. It is a warning, since this is measured only where float32 is right: whoever never
    feeds it half precision loses nothing.

    Fix: Cast the input to float32 for mean and variance, normalize, and cast the result back.
    """

    code = "half-accumulation"
    edge = True
    severity = "warning"
    requires: ClassVar[tuple[str, ...]] = (*PrecisionRule.requires, "output-dtype")

    def not_applicable(self, probe: Measurements) -> str | None:
        if not probe.library.half_precision_dtypes:
            return "NumPy code is not run in half precision"
        if all(probe.output_dtypes[dtype].startswith("raises") for dtype in probe.library.half_precision_dtypes):
            return "it refuses half precision"
        return super().not_applicable(probe)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        noise = np.random.default_rng(32).normal(size=probe.geometry.shape(probe.rank))
        # torch's own batch norm rounds scale and shift to the parameters' bfloat16: off by up to 0.2, others by 0.02
        rounded = 0.4 if probe.family in ("batch", "instance") else 0.06
        trials = {
            "bfloat16, mean / std 60": (noise + (0.0 if probe.family == "rms" else 60.0), "bfloat16", rounded),
            "float16, std 300": (noise * 300.0, "float16", 0.02),
        }
        shown = []
        for name, (values, dtype, allowed) in trials.items():
            if probe.output_dtypes[dtype].startswith("raises"):
                continue
            error = _error(probe, values, dtype)
            if error > allowed:
                shown.append(f"{name}: off by {number(error)}, {number(allowed)} would pass")
        if shown:
            yield self.finding("computes its statistics in half precision", "; ".join(shown))


class RmsDtypeOrder(PrecisionRule):
    """In half precision the result is rounded before the weight is applied.

    Why: torch.nn.RMSNorm multiplies by the weight in float32 and rounds once; Llama's reference rounds first. Logits
    differ in the last bit, which is enough for a generation to take another turn.

    Fix: ``(x_hat * weight.float()).to(x.dtype)`` for torch's order. Leave it if you port Llama's checkpoints.
    """

    code = "rms-dtype-order"
    severity = "warning"
    families: ClassVar[tuple[str, ...]] = ("rms",)
    requires: ClassVar[tuple[str, ...]] = (*PrecisionRule.requires, "half-accumulation", "output-dtype")

    def not_applicable(self, probe: Measurements) -> str | None:
        if probe.library is not TORCH or "weight" not in probe.affine:
            return "needs torch and a weight"
        if probe.output_dtypes["bfloat16"].startswith("raises"):
            return "it refuses bfloat16"
        return super().not_applicable(probe)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        formula = probe.formula
        assert formula is not None

        def half(values: Values) -> Values:
            return probe.library.values(probe.library.make(values, "bfloat16"))

        x = half(probe.x())
        layer = probe.layer_as("bfloat16")
        size = layer.read("weight")["weight"].size
        layer.write(weight=np.random.default_rng(33).uniform(0.3, 1.7, size))
        weight = layer.read("weight")["weight"]
        x_hat = formula.apply(x)
        y = probe.library.values(probe.run(layer, probe.library.make(x, "bfloat16")))
        once, twice = probe.scaled(x_hat, weight, None), probe.scaled(half(x_hat), weight, None)
        if once is None or twice is None:
            return
        matches_once, matches_twice = float(np.mean(y == half(once))), float(np.mean(y == half(twice)))
        if matches_twice > matches_once and matches_twice > 0.97:
            yield self.finding(
                "rounds to bfloat16 before it multiplies by the weight",
                f"{matches_twice:.0%} of outputs equal that order, {matches_once:.0%} torch's",
            )


RULES = (Cancellation, HalfAccumulation, RmsDtypeOrder)
