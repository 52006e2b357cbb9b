"""Precision: large means, half types, the order of rounding."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from normkit.checking.arrays import Values
from normkit.checking.report import Finding
from normkit.checking.rules.base import Rule, number

if TYPE_CHECKING:
    from normkit.checking.lab import Lab

_BASIC = ("output-shape", "not-deterministic", "formula-wrong", "eps-missing", "train-uses-running-stats")


def _error(lab: "Lab", values: Values, dtype: str) -> float:
    """The largest difference from the formula, evaluated in float64 on the rounded input."""
    formula = lab.formula
    assert formula is not None
    x = lab.library.make(values, dtype)
    y = lab.library.values(lab.run(lab.layer_as(dtype), x))
    gap = np.abs(y - formula.apply(lab.library.values(x)))
    return float(np.inf if not np.isfinite(gap).all() else gap.max())


class PrecisionRule(Rule):
    """A check that holds outputs against the formula."""

    requires: ClassVar[tuple[str, ...]] = _BASIC

    def not_applicable(self, lab: "Lab") -> str | None:
        return "the formula could not be measured" if lab.formula is None else None


class Cancellation(PrecisionRule):
    """The variance loses its digits when the mean is large: it is computed as E[x²] - E[x]².

    Why: In float32 both terms agree in all their digits once the mean is a few thousand standard deviations, as for
    raw pixels, temperatures, timestamps or a ReLU's rare channel; the difference is noise, or negative, then NaN.

    Fix: Two passes, ``((x - mean) ** 2).mean()``, or Welford's and Chan's updates.
    """

    code = "cancellation"
    families: ClassVar[tuple[str, ...]] = ("batch", "layer", "group", "instance")

    def check(self, lab: "Lab") -> Iterator[Finding]:
        noise = np.random.default_rng(31).normal(size=lab.geometry.shape(lab.rank))
        errors = {ratio: _error(lab, noise + ratio, "float32") for ratio in (1e2, 1e3, 1e4)}
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
    severity = "warning"
    requires: ClassVar[tuple[str, ...]] = (*_BASIC, "output-dtype")

    def not_applicable(self, lab: "Lab") -> str | None:
        if lab.library.name == "numpy":
            return "NumPy code is not run in half precision"
        if all(lab.output_dtypes[dtype].startswith("raises") for dtype in ("bfloat16", "float16")):
            return "it refuses half precision"
        return super().not_applicable(lab)

    def check(self, lab: "Lab") -> Iterator[Finding]:
        noise = np.random.default_rng(32).normal(size=lab.geometry.shape(lab.rank))
        # torch's own batch norm rounds scale and shift to the parameters' bfloat16: off by up to 0.2, others by 0.02
        rounded = 0.4 if lab.family in ("batch", "instance") else 0.06
        trials = {
            "bfloat16, mean / std 60": (noise + (0.0 if lab.family == "rms" else 60.0), "bfloat16", rounded),
            "float16, std 300": (noise * 300.0, "float16", 0.02),
        }
        shown = []
        for name, (values, dtype, allowed) in trials.items():
            if lab.output_dtypes[dtype].startswith("raises"):
                continue
            error = _error(lab, values, dtype)
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
    requires: ClassVar[tuple[str, ...]] = (*_BASIC, "half-accumulation", "output-dtype")

    def not_applicable(self, lab: "Lab") -> str | None:
        if lab.library.name != "torch" or "weight" not in lab.affine:
            return "needs torch and a weight"
        if lab.output_dtypes["bfloat16"].startswith("raises"):
            return "it refuses bfloat16"
        return super().not_applicable(lab)

    def check(self, lab: "Lab") -> Iterator[Finding]:
        formula = lab.formula
        assert formula is not None

        def half(values: Values) -> Values:
            return lab.library.values(lab.library.make(values, "bfloat16"))

        x = half(lab.x())
        layer = lab.layer_as("bfloat16")
        size = layer.read("weight")["weight"].size
        layer.write(weight=np.random.default_rng(33).uniform(0.3, 1.7, size))
        weight = layer.read("weight")["weight"]
        x_hat = formula.apply(x)
        y = lab.library.values(lab.run(layer, lab.library.make(x, "bfloat16")))
        once, twice = lab.scaled(x_hat, weight, None), lab.scaled(half(x_hat), weight, None)
        if once is None or twice is None:
            return
        matches_once, matches_twice = float(np.mean(y == half(once))), float(np.mean(y == half(twice)))
        if matches_twice > matches_once and matches_twice > 0.97:
            yield self.finding(
                "rounds to bfloat16 before it multiplies by the weight",
                f"{matches_twice:.0%} of outputs equal that order, {matches_once:.0%} torch's",
            )


RULES = (Cancellation, HalfAccumulation, RmsDtypeOrder)
