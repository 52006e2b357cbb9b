"""Measure the running statistics: the update new = a·old + b·batch, the initial values, what evaluation does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from normkit.checking.measure.formula import TOLERANCE, Formula, fit_eps
from normkit.checking.measure.probe import Probe
from normkit.checking.patterns import Pattern, Values, reducing
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.errors import TargetError
from normkit.checking.target.state import RUNNING

_STEPS = 4
_MORE_STEPS = 25
"""Batches that tell the plain average of all from one that stops at a least weight, such as max(1 / n, 0.1)."""

_STEADY = 5e-3
"""The largest difference of two weights that are the same."""

Weights = Literal["constant", "cumulative", "changing"]
"""How much each batch weighs: the same, one n-th as in the plain average of n batches, or something else."""

Step = tuple[float, float]
"""(a, b) of new = a·old + b·batch, for one step."""


@dataclass(frozen=True)
class Update:
    """The update rule of the running statistics.

    Args:
        mean: (a, b) of new = a·old + b·batch for the mean; None where no such rule fits.
        var: The same for the variance, b relative to the variance that it follows.
        unbiased: Whether the running variance follows the unbiased variance.
        of_std: Whether the running variance is a standard deviation.
        factor: What the running variance follows, as a multiple of the biased variance.
        weights: How the weights of the batches go on; constant where there are none.
        batch_weights: The weight of each batch in the mean.
        first_replaces: Whether the first batch replaces the initial values.
        updated: Which statistics changed their value.
        written: Which statistics were written to, even where the value stayed.
        initial: The values before the first batch, inferred where none were kept yet; missing where there were none.
    """

    mean: Step | None
    var: Step | None
    unbiased: bool
    of_std: bool
    factor: float
    weights: Weights
    batch_weights: tuple[float, ...]
    first_replaces: bool
    updated: tuple[str, ...]
    written: tuple[str, ...]
    initial: dict[str, Values]


@dataclass(frozen=True)
class Evaluation:
    """The measured behaviour in evaluation.

    Args:
        statistics: running, batch, nothing (returns its input) or other.
        residual: The difference to the definition with running statistics.
        eps: The eps that evaluation uses; None where it could not be measured.
        eps_place: inside, outside, clamp or missing; None where it could not be measured.
        by_effect: Whether only what it does tells: its running statistics are kept in a form of their own, as sums.
        shape: The shape of its running statistics, where they are kept for more than the channels.
    """

    statistics: str
    residual: float
    eps: float | None = None
    eps_place: str | None = None
    by_effect: bool = False
    shape: tuple[int, ...] | None = None


@dataclass(frozen=True)
class _Trace:
    """The running statistics over a few batches.

    Args:
        initial: The running statistics before the first batch, where there were any.
        history: The running statistics before and after each batch.
        batches: The statistics of each batch: the mean, and the biased variance.
        written: Which running statistics were written to.
    """

    initial: dict[str, Values]
    history: dict[str, list[Values]]
    batches: dict[str, list[Values]]
    written: tuple[str, ...]


def measure_update(probe: Probe, *, steps: int = _STEPS, **overrides: Any) -> Update:
    """Feed batches of different mean and variance, and fit what comes of them.

    Args:
        probe: The target.
        steps: How many batches; more are fed where the first ones are averaged plainly.
        overrides: Arguments by role that an experiment sets: ``momentum=0.3``.
    """
    trace = _trace(probe, steps, **overrides)
    history, means, variances = trace.history, trace.batches["running_mean"], trace.batches["running_var"]
    n = probe.expected()[0].count
    mean_steps = _steps(history["running_mean"], means)
    var_steps, of_std = _steps(history["running_var"], variances), False
    if var_steps is None and history["running_var"]:
        var_steps = _steps(history["running_var"], [np.sqrt(var) for var in variances])
        of_std = var_steps is not None
    mean, var = _last(mean_steps), _last(var_steps)
    weights = _weights(len(means), mean_steps, var_steps)
    if weights == "cumulative" and len(means) < _MORE_STEPS:
        return measure_update(probe, steps=_MORE_STEPS, **overrides)
    weight = (mean_steps[-1][1] if mean_steps else 0.0) or (1 - var[0] if var else 0.0)
    factor = var_steps[-1][1] / weight if var_steps and abs(weight) > 1e-6 else 1.0
    unbiased = n > 1 and abs(factor - n / (n - 1)) < abs(factor - 1)
    if var is not None:
        var = (var[0], var[1] * (n - 1) / n if unbiased else var[1])
    return Update(
        mean=mean,
        var=var,
        unbiased=unbiased,
        of_std=of_std,
        factor=factor,
        weights=weights,
        batch_weights=tuple(step[1] for step in mean_steps or ()),
        first_replaces=weights != "cumulative" and bool(mean) and _replaced(history["running_mean"], means),
        updated=tuple(r for r, kept in history.items() if any(not np.array_equal(kept[0], v) for v in kept)),
        written=trace.written,
        initial={**trace.initial, **_inferred(trace, {"running_mean": mean_steps, "running_var": var_steps})},
    )


def _trace(probe: Probe, steps: int, **overrides: Any) -> _Trace:
    layer = probe.layer(neutral=not probe.makes_affine_late, **overrides)
    per_statistic, within = _per_channel(probe), probe.expected()[0]
    if (wider := _pattern_of_state(probe)) is not None:
        per_statistic = within = wider
    initial = {role: values for role, values in layer.read(*RUNNING).items() if np.isfinite(values).all()}
    grows = {role for role, values in initial.items() if wider is not None and values.size != wider.statistics}
    history = {role: [initial[role]] if role in {*initial} - grows else [] for role in RUNNING}
    batches: dict[str, list[Values]] = {role: [] for role in RUNNING}
    written: set[str] = set()
    for step in range(steps):
        x = probe.x(seed=200 + step) * (1.0 + 0.5 * step) + step
        before = {role: _stamp(slot.whole()) for role, slot in layer.slots().items()}
        probe.forward(layer, x)
        after = {role: _stamp(slot.whole()) for role, slot in layer.slots().items()}
        written |= {role for role in after if role in RUNNING and after[role] != before.get(role)}
        for role, values in zip(RUNNING, _moments(probe.cast(x), per_statistic, within), strict=True):
            batches[role].append(values)
        for role, values in layer.read(*RUNNING).items():
            history[role].append(values)
    return _Trace(initial, history, batches, tuple(sorted(written)))


def _inferred(trace: _Trace, steps: dict[str, list[Step] | None]) -> dict[str, Values]:
    """The initial values of statistics that did not exist before the first batch, by extrapolation."""
    found = {}
    for role, fitted in steps.items():
        if role not in trace.initial and fitted and abs(fitted[-1][0]) > 1e-3:
            a, b = fitted[-1]
            start = (trace.history[role][0].reshape(-1) - b * trace.batches[role][0]) / a
            if np.allclose(start, start[0], atol=1e-3):
                found[role] = np.round(start, 3)
    return found


def _per_channel(probe: Probe) -> Pattern:
    geometry, rank = probe.geometry, probe.rank
    reduced = tuple(axis for axis in range(rank) if axis != geometry.channel_axis(rank))
    return reducing(geometry.shape(rank), reduced, geometry.axis_names(rank))


def _pattern_of_state(probe: Probe) -> Pattern | None:
    """What running statistics average over that are kept for more than the channels, as for each position too."""
    pattern = probe.pattern()
    sizes = {values.size for values in probe.train(steps=1).read(*RUNNING).values()}
    channels = probe.geometry.shape(probe.rank)[probe.geometry.channel_axis(probe.rank)]
    return pattern if pattern is not None and sizes == {pattern.statistics} and channels not in sizes else None


def _moments(x: Values, per_statistic: Pattern, within: Pattern) -> tuple[Values, Values]:
    """Mean and biased variance; where statistics are per sample (instance), their averages over samples."""
    flat = per_statistic.labels.reshape(-1)
    counts = np.bincount(flat)
    mean = np.bincount(flat, x.reshape(-1)) / counts
    return mean, np.bincount(flat, ((x - within.average(x)) ** 2).reshape(-1)) / counts


def _stamp(held: object) -> tuple[int, int]:
    """A value that changes whenever a slot is assigned, or a torch tensor is written to."""
    return id(held), int(getattr(held, "_version", 0))


def _steps(history: list[Values], batches: list[Values]) -> list[Step] | None:
    """Fit (a, b) to each step; None where a step is no such mixture."""
    history = history[-len(batches) - 1 :]
    if len(history) < 2:
        return None
    found = []
    for old, new, batch in zip(history[:-1], history[1:], batches[-len(history) + 1 :], strict=True):
        if new.size != batch.size or not (np.isfinite(old).all() and np.isfinite(new).all()):
            return None
        design = np.stack([np.broadcast_to(old.reshape(-1), batch.shape), batch], axis=1)
        solution = np.linalg.lstsq(design, new.reshape(-1), rcond=None)[0]
        residual = np.abs(design @ solution - new.reshape(-1)).max()
        if not np.isfinite(residual) or residual > 1e-4 * max(np.abs(new).max(), 1e-3):
            return None
        found.append((float(solution[0]), float(solution[1])))
    return found or None


def _last(steps: list[Step] | None) -> Step | None:
    return (round(steps[-1][0], 6), round(steps[-1][1], 6)) if steps else None


def _weights(count: int, *fitted: list[Step] | None) -> Weights:
    """Tell how the weights of the batches go on, by what is left of the old value in each step."""
    found = {_weights_of(count, [old for old, _ in steps]) for steps in fitted if steps}
    return found.pop() if len(found) == 1 else "changing" if found else "constant"


def _weights_of(count: int, kept: list[float]) -> Weights:
    """Tell it of one statistic; the first batch may replace what was there, or make it."""
    later = np.array(kept[1:])
    if len(later) < 2 or np.ptp(later) < _STEADY:
        return "constant"
    plain = np.array([(step - 1) / step for step in range(count - len(later) + 1, count + 1)])
    return "cumulative" if np.abs(later - plain).max() < _STEADY else "changing"


def _replaced(history: list[Values], batches: Sequence[Values]) -> bool:
    first = history[-len(batches)]
    return bool(first.size == batches[0].size and np.allclose(first.reshape(-1), batches[0], rtol=1e-3, atol=1e-4))


def measure_evaluation(probe: Probe, formula: Formula | None) -> Evaluation:
    """Train on a few batches, evaluate on others, and compare with both kinds of statistics.

    Args:
        probe: The target.
        formula: What it computes in training.
    """
    layer = probe.train()
    x = probe.x(seed=300) * 1.7 - 2.0
    state = layer.read(*RUNNING)
    y = probe.forward(layer, x, training=False)
    if y.shape != x.shape:
        return Evaluation("other", np.inf)
    residual, shape = np.inf, None
    channels = x.shape[probe.geometry.channel_axis(x.ndim)]
    if len(state) == 2:
        if all(values.size in (1, channels) for values in state.values()):
            state = {role: values.reshape(probe.geometry.per_channel(x.ndim)) for role, values in state.items()}
        elif all(_fits_beside(values, x) for values in state.values()):
            shape = state["running_var"].shape
        mean, var = (state[role] for role in RUNNING)
        if _fits_beside(mean, x) and _fits_beside(var, x):
            residual = float(np.abs(y - (x - mean) / np.sqrt(var + (formula.eps if formula else 0.0))).max())
    if residual < 10 * TOLERANCE:
        eps = _evaluation_eps(probe) if shape is None else (None, None)
        return Evaluation("running", residual, *eps, shape=shape)
    if formula is not None and float(np.abs(y - formula.apply(x)).max()) < 10 * TOLERANCE:
        return Evaluation("batch", residual)
    if float(np.abs(y - x).max()) < 1e-4:
        return Evaluation("nothing", residual)
    if probe.expected() and _follows_batches(probe, layer):
        return Evaluation("running", residual, by_effect=True)
    return Evaluation("other", residual)


def _fits_beside(values: Values, x: Values) -> bool:
    """Whether values broadcast to the shape of the input."""
    try:
        return np.broadcast_shapes(values.shape, x.shape) == x.shape
    except ValueError:
        return False


def _follows_batches(probe: Probe, layer: Adapter) -> bool:
    """Whether evaluation is (x - m) / s with an m and s a channel that are among those of the batches before."""
    x = probe.cast(np.random.default_rng(70).normal(0.0, 2.0, probe.geometry.shape(probe.rank)))
    outputs = [probe.forward(layer, values, training=False) for values in (x, probe.cast(x + 1.0))]
    slope = outputs[1] - outputs[0]
    channels, within = _per_channel(probe), probe.expected()[0]
    if not np.isfinite(slope).all() or (slope <= 0).any() or np.abs(slope - channels.average(slope)).max() > TOLERANCE:
        return False
    mean, deviation = x - outputs[0] / slope, 1 / slope
    if np.abs(mean - channels.average(mean)).max() > 10 * TOLERANCE:
        return False
    batches = [_moments(probe.cast(probe.x(seed=100 + step)), channels, within) for step in range(3)]
    means, variances = (np.stack(values)[:, channels.labels] for values in zip(*batches, strict=True))
    spread = np.sqrt(variances.max(0))
    near = (mean > means.min(0) - spread / 2) & (mean < means.max(0) + spread / 2)
    scaled = (deviation**2 > variances.min(0) / 2) & (deviation**2 < variances.max(0) * 2)
    return bool((near & scaled).all())


def _evaluation_eps(probe: Probe) -> tuple[float | None, str | None]:
    """Give it tiny running variances and read the denominator off its output."""
    layer = probe.train(steps=1)
    state = layer.read(*RUNNING)
    if len(state) < 2:
        return None, None
    size = state["running_var"].size
    var = np.geomspace(1e-16, 1e-3, size) if size > 1 else np.array([1e-6])
    try:
        layer.write(running_mean=np.zeros(size), running_var=var)
        held = layer.read("running_var")["running_var"].reshape(-1)
        y = probe.forward(layer, probe.cast(np.ones(probe.geometry.shape(probe.rank))), training=False)
    except (TargetError, ValueError, TypeError):
        return None, None
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.abs(1 / y)
    v = np.broadcast_to(held.reshape(probe.geometry.per_channel(probe.rank)), d.shape)
    if not np.isfinite(d).all():
        return 0.0, "missing"
    order = np.argsort(v.reshape(-1))
    return fit_eps(v.reshape(-1)[order][:, None], d.reshape(-1)[order][:, None])
