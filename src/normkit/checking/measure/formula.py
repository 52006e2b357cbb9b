"""Measure the formula: what is averaged over, the mean subtracted or not, the variance biased or not, and eps."""

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from normkit.checking.measure.probe import Probe
from normkit.checking.patterns import Pattern, Values, standardize

TOLERANCE = 5e-4  # of an output whose standard deviation is 1: float32, carelessly summed, stays well below
_LEVELS = tuple(10.0**power for power in range(-14, 3))
_NO_EPS = 1e-30
_LEAST_BESIDE_A_SHIFT = 1e-4


@dataclass(frozen=True)
class Formula:
    """The formula that fits.

    Args:
        mean_over: What the mean averages over.
        var_over: What the variance averages over.
        subtract_mean: Whether the mean is subtracted.
        ddof: 0 for the biased variance, 1 for the unbiased one.
        eps: The size of eps; 0 where there is none.
        eps_place: inside (the square root), outside, clamp (max(var, eps)), missing.
        residual: The largest difference between the target and the formula.
        scale: What the output must be multiplied with to fit; 1 unless the formula is another one.
    """

    mean_over: Pattern
    var_over: Pattern
    subtract_mean: bool
    ddof: int
    eps: float
    eps_place: str
    residual: float
    scale: float = 1.0

    @property
    def fits(self) -> bool:
        """Whether the target computes this formula."""
        return self.residual < TOLERANCE

    def on(self, pattern: Pattern) -> "Formula":
        """Return the same formula over another pattern."""
        return dataclasses.replace(self, mean_over=pattern, var_over=pattern)

    def apply(self, x: Values) -> Values:
        """Compute what the formula gives."""
        axes = self.mean_over, self.var_over
        if self.eps_place == "inside":
            return standardize(x, *axes, eps=self.eps, ddof=self.ddof, subtract_mean=self.subtract_mean)
        plain = standardize(x, *axes, ddof=self.ddof, subtract_mean=self.subtract_mean)
        deviation = self.deviation(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            std = np.abs(deviation / plain)
            std = std + self.eps if self.eps_place == "outside" else np.maximum(std, np.sqrt(self.eps))
            return np.asarray(deviation / std)

    def deviation(self, x: Values) -> Values:
        """Compute x - mean, or x where the mean is not subtracted."""
        return x - self.mean_over.average(x) if self.subtract_mean else x


def measure_formula(probe: Probe) -> Formula | None:
    """Measure the formula that a target computes in training; None where the axes cannot be measured."""
    x, pattern = probe.x(), probe.pattern()
    y = probe.forward(probe.layer(), x)
    if y.shape != x.shape:
        return None
    if (pattern is not None and pattern.count == 1) or probe.is_permuted or probe.applies_relu:
        return None
    axes = None if pattern is None else _fit_axes(x, y, [pattern])
    if axes is None:
        axes = _fit_axes(x, y, [p for p in probe.all_patterns(probe.rank) if p.count > 1])
    if axes is None:
        if pattern is None:
            return None
        axes = pattern, pattern, probe.family != "rms"
    mean_over, var_over, subtract_mean = axes
    return fit(probe, mean_over, var_over, subtract_mean=subtract_mean)


def _fit_axes(x: Values, y: Values, patterns: Sequence[Pattern]) -> tuple[Pattern, Pattern, bool] | None:
    """The patterns of mean and variance, and whether the mean is subtracted: the first pair of patterns that fits."""
    pairs = sorted(itertools.product(patterns, patterns), key=lambda pair: pair[0] is not pair[1])
    for subtract_mean, (mean_over, var_over) in itertools.product((True, False), pairs):
        if subtract_mean or mean_over is var_over:
            z = standardize(x, mean_over, var_over, subtract_mean=subtract_mean, eps=1e-12)
            if _residual(y, z)[0] < TOLERANCE:
                return mean_over, var_over, subtract_mean
    return None


def _residual(y: Values, z: Values) -> tuple[float, float]:
    """The largest difference of y from a multiple of z, and the multiple."""
    if not (np.isfinite(y).all() and np.isfinite(z).all()) or not z.any():
        return np.inf, 1.0
    scale = float((y * z).sum() / (z * z).sum())
    if abs(scale) < 1e-6:
        return np.inf, scale
    return float(np.abs(y / scale - z).max()), scale


def fit(probe: Probe, mean_over: Pattern, var_over: Pattern, *, subtract_mean: bool, **overrides: Any) -> Formula:
    """Feed the same noise at many scales and read off the denominator at each.

    Args:
        probe: The target.
        mean_over: What the mean averages over.
        var_over: What the variance averages over.
        subtract_mean: Whether the mean is subtracted.
        overrides: Arguments by role that an experiment sets: ``eps=0.03``.
    """
    formula = Formula(mean_over, var_over, subtract_mean, 0, 0.0, "missing", np.inf)
    noise = np.random.default_rng(11).normal(size=mean_over.labels.shape)
    variances, denominators = [], []
    for level in _LEVELS if not probe.undoes else (one for one in _LEVELS if one >= _LEAST_BESIDE_A_SHIFT):
        x = probe.cast(noise * level)
        deviation = formula.deviation(x)
        y = probe.forward(probe.layer(**overrides), x)
        slope = var_over.average(y * deviation) / var_over.average(deviation**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            denominators.append(1 / slope)
        variances.append(var_over.average((x - var_over.average(x) if subtract_mean else x) ** 2))
    v, d = np.stack(variances), np.stack(denominators)  # one row a level
    if not np.isfinite(d).all() or (d <= 0).any():
        return formula
    n = var_over.count
    ratio = float(np.median(d[-1] ** 2 / v[-1]))
    unbiased = n > 1 and abs(ratio * (n - 1) / n - 1) < min(abs(ratio - 1), 0.01)
    v = v * n / (n - 1) if unbiased else v
    eps, eps_place = fit_eps(v, d)
    formula = dataclasses.replace(formula, ddof=int(unbiased), eps=eps, eps_place=eps_place)
    x = probe.cast(noise * 2.0 + 0.5)
    residual, scale = _residual(probe.forward(probe.layer(**overrides), x), formula.apply(x))
    errors = [residual, abs(scale - 1), _relative_residual(v, d, eps, eps_place) / 20]
    return dataclasses.replace(formula, residual=max(errors), scale=scale)


def fit_eps(v: Values, d: Values) -> tuple[float, str]:
    """Tell eps and its place from variances and denominators, both in rising order of the variance."""
    guesses = {
        "inside": float(np.median(d[0] ** 2 - v[0])),
        "outside": float(np.median(d[0] - np.sqrt(v[0]))),
        "clamp": float(np.median(d[0] ** 2)),
        "missing": 0.0,
    }
    residuals = {place: _relative_residual(v, d, max(eps, 0.0), place) for place, eps in guesses.items()}
    if residuals["missing"] < 1e-3 or guesses["inside"] < _NO_EPS:
        return 0.0, "missing"
    place = min(residuals, key=lambda name: residuals[name])
    return guesses[place], place


def _relative_residual(v: Values, d: Values, eps: float, eps_place: str) -> float:
    if eps_place == "outside":
        predicted = np.sqrt(v) + eps
    else:
        predicted = np.sqrt(np.maximum(v, eps) if eps_place == "clamp" else v + eps)
    return float(np.abs(predicted / d - 1).max())
