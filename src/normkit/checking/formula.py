"""Measure the formula: what is averaged over, centred or not, biased or not, where eps is and how large."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from normkit.checking.arrays import Values
from normkit.checking.patterns import Pattern, candidates, standardize

Forward = Callable[[Values], Values]

TOLERANCE = 5e-4  # of an output whose standard deviation is 1: float32, carelessly summed, stays well below
_LEVELS = tuple(10.0**power for power in range(-9, 3))
_NO_EPS = 1e-19


@dataclass(frozen=True)
class Formula:
    """The formula that fits.

    Args:
        mean_over: What the mean averages over.
        var_over: What the variance averages over.
        centred: Whether the mean is subtracted.
        ddof: 0 for the biased variance, 1 for the unbiased one.
        eps: How large eps is; 0 where there is none.
        place: inside (the square root), outside, clamp (max(var, eps)), missing.
        misfit: The largest difference between the target and the formula.
        scale: What the output must be multiplied with to fit; 1 unless the formula is another one.
    """

    mean_over: Pattern
    var_over: Pattern
    centred: bool
    ddof: int
    eps: float
    place: str
    misfit: float
    scale: float = 1.0

    @property
    def fits(self) -> bool:
        """Whether the target computes this formula."""
        return self.misfit < TOLERANCE

    def on(self, pattern: Pattern) -> "Formula":
        """The same formula over another pattern."""
        return dataclasses.replace(self, mean_over=pattern, var_over=pattern)

    def apply(self, x: Values) -> Values:
        """What the formula gives."""
        if self.place == "inside":
            return standardize(x, self.mean_over, self.var_over, eps=self.eps, ddof=self.ddof, centred=self.centred)
        plain = standardize(x, self.mean_over, self.var_over, ddof=self.ddof, centred=self.centred)
        deviation = x - self.mean_over.average(x) if self.centred else x
        with np.errstate(divide="ignore", invalid="ignore"):
            std = np.abs(deviation / plain)
            std = std + self.eps if self.place == "outside" else np.maximum(std, np.sqrt(self.eps))
            return np.asarray(deviation / std)


def dependence(forward: Forward, x: Values) -> list[tuple[tuple[int, ...], Values]]:
    """For a few elements: which outputs change when that one element of the input changes."""
    base = forward(x)
    threshold = 1e-5 * max(float(np.abs(base[np.isfinite(base)]).max(initial=0.0)), 1e-3)
    generator = np.random.default_rng(3)
    probes = {tuple(0 for _ in x.shape), tuple(size - 1 for size in x.shape)}
    while len(probes) < min(4, x.size):
        probes.add(tuple(int(generator.integers(size)) for size in x.shape))
    found = []
    for probe in sorted(probes):
        touched = np.zeros(x.shape, dtype=bool)
        for step in (3.0, -2.0):
            moved = x.copy()
            moved[probe] += step
            touched |= ~(np.abs(forward(moved) - base) <= threshold)
        found.append((probe, touched))
    return found


def match(found: Sequence[tuple[tuple[int, ...], Values]], patterns: Sequence[Pattern]) -> Pattern | None:
    """The pattern that explains what changed, if one does."""
    for pattern in patterns:
        if all(np.array_equal(touched, pattern.labels == pattern.labels[probe]) for probe, touched in found):
            return pattern
    return None


def fit_axes(forward: Forward, x: Values, patterns: Sequence[Pattern]) -> tuple[Pattern, Pattern, bool] | None:
    """The patterns of the mean and of the variance, tried in all pairs; None where no pair fits."""
    y = forward(x)
    pairs = sorted(itertools.product(patterns, patterns), key=lambda pair: pair[0] is not pair[1])
    for centred, (mean_over, var_over) in itertools.product((True, False), pairs):
        if centred or mean_over is var_over:
            z = standardize(x, mean_over, var_over, centred=centred, eps=1e-12)
            if _misfit(y, z)[0] < TOLERANCE:
                return mean_over, var_over, centred
    return None


def _misfit(y: Values, z: Values) -> tuple[float, float]:
    """How far y is from a multiple of z, and the multiple."""
    if not (np.isfinite(y).all() and np.isfinite(z).all()) or not z.any():
        return np.inf, 1.0
    scale = float((y * z).sum() / (z * z).sum())
    if abs(scale) < 1e-6:
        return np.inf, scale
    return float(np.abs(y / scale - z).max()), scale


def fit(forward: Forward, mean_over: Pattern, var_over: Pattern, centred: bool, cast: Forward) -> Formula:
    """Feed the same noise at many scales and read off the denominator at each.

    Args:
        forward: The target, without weight and bias.
        mean_over: What the mean averages over.
        var_over: What the variance averages over.
        centred: Whether the mean is subtracted.
        cast: Rounds values to the precision that the target receives.
    """
    noise = np.random.default_rng(11).normal(size=mean_over.labels.shape)
    variances, denominators = [], []
    for level in _LEVELS:
        x = cast(noise * level)
        deviation = x - mean_over.average(x) if centred else x
        centre = x - var_over.average(x) if centred else x
        y = forward(x)
        slope = var_over.average(y * deviation) / var_over.average(deviation**2)
        with np.errstate(divide="ignore", invalid="ignore"):
            denominators.append(1 / slope)
        variances.append(var_over.average(centre**2))
    v, d = np.stack(variances), np.stack(denominators)  # one row a level
    if not np.isfinite(d).all() or (d <= 0).any():
        return Formula(mean_over, var_over, centred, 0, 0.0, "missing", np.inf)
    n = var_over.count
    ratio = float(np.median(d[-1] ** 2 / v[-1]))
    unbiased = n > 1 and abs(ratio * (n - 1) / n - 1) < min(abs(ratio - 1), 0.01)
    v = v * n / (n - 1) if unbiased else v
    eps, place = place_of_eps(v, d)
    formula = Formula(mean_over, var_over, centred, int(unbiased), eps, place, 0.0)
    x = cast(noise * 2.0 + 0.5)
    misfit, scale = _misfit(forward(x), formula.apply(x))
    errors = [misfit, abs(scale - 1), float(np.abs(_predict(v, eps, place) / d - 1).max()) / 20]
    return Formula(mean_over, var_over, centred, int(unbiased), eps, place, max(errors), scale)


def place_of_eps(v: Values, d: Values) -> tuple[float, str]:
    """Where eps is and how large, from variances and denominators in rising order of the variance."""
    guesses = {
        "inside": float(np.median(d[0] ** 2 - v[0])),
        "outside": float(np.median(d[0] - np.sqrt(v[0]))),
        "clamp": float(np.median(d[0] ** 2)),
        "missing": 0.0,
    }
    misfits = {place: float(np.abs(_predict(v, max(eps, 0.0), place) / d - 1).max()) for place, eps in guesses.items()}
    if misfits["missing"] < 1e-3 or guesses["inside"] < _NO_EPS:
        return 0.0, "missing"
    place = min(misfits, key=lambda name: misfits[name])
    return guesses[place], place


def _predict(v: Values, eps: float, place: str) -> Values:
    if place == "outside":
        return np.asarray(np.sqrt(v) + eps)
    return np.asarray(np.sqrt(np.maximum(v, eps) if place == "clamp" else v + eps))


def all_patterns(shape: tuple[int, ...], channel: int, names: str) -> list[Pattern]:
    """Every candidate, without doubles."""
    kept: list[Pattern] = []
    for pattern in candidates(shape, channel, names):
        if not any(pattern.same(other) for other in kept):
            kept.append(pattern)
    return kept
