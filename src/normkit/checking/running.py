"""Measure the running statistics: the update new = a·old + b·batch, the initial values, what evaluation does."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.checking.arrays import Values
from normkit.checking.errors import TargetError
from normkit.checking.formula import TOLERANCE, place_of_eps
from normkit.checking.patterns import Pattern, reducing

if TYPE_CHECKING:
    from normkit.checking.lab import Lab

_STEPS = 4


@dataclass(frozen=True)
class Update:
    """The update rule of the running statistics.

    Args:
        mean: (a, b) of new = a·old + b·batch for the mean; None where no such rule fits.
        var: The same for the variance, b relative to the variance that it follows.
        unbiased: Whether the running variance follows the unbiased variance.
        of_std: Whether the place of the variance holds a standard deviation.
        factor: What the running variance follows, as a multiple of the biased variance.
        cumulative: Whether it is the plain average over all batches so far.
        first_replaces: Whether the first batch replaces the initial values.
        moved: Which statistics changed their value.
        written: Which statistics were written to, even where the value stayed.
        initial: The values before the first batch, inferred where none were kept yet; missing where there were none.
        size: How many numbers each statistic holds.
    """

    mean: tuple[float, float] | None
    var: tuple[float, float] | None
    unbiased: bool
    of_std: bool
    factor: float
    cumulative: bool
    first_replaces: bool
    moved: tuple[str, ...]
    written: tuple[str, ...]
    initial: dict[str, Values]
    size: int


@dataclass(frozen=True)
class Evaluation:
    """What evaluation does.

    Args:
        statistics: running, batch, nothing (returns its input) or other.
        eps: The eps that evaluation uses, and its place; None where it could not be told.
        place: inside, outside, clamp or missing.
        misfit: The difference to the definition with running statistics.
    """

    statistics: str
    eps: float | None
    place: str | None
    misfit: float


def measure_update(lab: "Lab", **probes: Any) -> Update:
    """Feed batches of different mean and variance, and fit what comes of them.

    Args:
        lab: The laboratory.
        probes: Arguments by role that an experiment sets: ``momentum=0.3``.
    """
    layer = lab.layer(**probes)
    roles = ("running_mean", "running_var")
    initial = layer.read(*roles)
    per, within = _per_channel(lab), lab.expected()[0]
    history: dict[str, list[Values]] = {role: [initial[role]] if role in initial else [] for role in roles}
    batches: list[tuple[Values, Values]] = []
    written: set[str] = set()
    for step in range(_STEPS):
        x = lab.x(seed=200 + step) * (1.0 + 0.5 * step) + step
        before = {role: _stamp(slot.read()) for role, slot in layer.slots().items()}
        lab.forward(layer, x)
        written |= {r for r, slot in layer.slots().items() if r in roles and _stamp(slot.read()) != before.get(r)}
        batches.append(_moments(lab.cast(x), per, within))
        for role, values in layer.read(*roles).items():
            history[role].append(values)
    n = within.count
    size = max((values.size for kept in history.values() for values in kept), default=0)
    means = [mean for mean, _ in batches]
    variances = [var for _, var in batches]
    mean_steps = _steps(history["running_mean"], means)
    var_steps, of_std = _steps(history["running_var"], variances), False
    if var_steps is None and history["running_var"]:
        var_steps = _steps(history["running_var"], [np.sqrt(var) for var in variances])
        of_std = var_steps is not None
    mean, var = _settled(mean_steps), _settled(var_steps)
    cumulative = _is_cumulative(mean_steps) and _is_cumulative(var_steps)
    weight = (mean_steps[-1][1] if mean_steps else 0.0) or (1 - var[0] if var else 0.0)
    factor = var_steps[-1][1] / weight if var_steps and abs(weight) > 1e-6 else 1.0
    unbiased = n > 1 and abs(factor - n / (n - 1)) < abs(factor - 1)
    if var is not None:
        var = (var[0], var[1] * (n - 1) / n if unbiased else var[1])
    for role, steps, series in (("running_mean", mean_steps, means), ("running_var", var_steps, variances)):
        if role not in initial and steps and abs(steps[-1][0]) > 1e-3:
            a, b = steps[-1]
            start = (history[role][0].reshape(-1) - b * series[0]) / a  # what it must have started from
            if np.allclose(start, start[0], atol=1e-3):
                initial[role] = np.round(start, 3)
    replaces = not cumulative and bool(mean) and _replaced(history["running_mean"], means)
    moved = tuple(r for r, kept in history.items() if any(not np.array_equal(kept[0], values) for values in kept))
    return Update(
        mean, var, unbiased, of_std, factor, cumulative, replaces, moved, tuple(sorted(written)), initial, size
    )


def _per_channel(lab: "Lab") -> Pattern:
    shape, channel = lab.geometry.shape(lab.rank), lab.geometry.channel_axis(lab.rank)
    return reducing(shape, tuple(a for a in range(lab.rank) if a != channel), lab.geometry.axis_names(lab.rank))


def _moments(x: Values, per: Pattern, within: Pattern) -> tuple[Values, Values]:
    """Mean and biased variance a channel; where statistics are per sample (instance), their averages over samples."""
    flat = per.labels.reshape(-1)
    counts = np.bincount(flat)
    mean = np.bincount(flat, x.reshape(-1)) / counts
    return mean, np.bincount(flat, ((x - within.average(x)) ** 2).reshape(-1)) / counts


def _stamp(held: object) -> tuple[int, int]:
    """Changes whenever a slot is assigned, or a torch tensor is written to."""
    return id(held), int(getattr(held, "_version", 0))


def _steps(history: list[Values], batches: list[Values]) -> list[tuple[float, float]] | None:
    """(a, b) of each step; None where a step is no such mixture."""
    history = history[-len(batches) - 1 :]
    found = []
    for old, new, batch in zip(history[:-1], history[1:], batches[-len(history) + 1 :], strict=True):
        if new.size != batch.size:
            return None
        old = np.broadcast_to(old.reshape(-1), batch.shape)
        design = np.stack([old, batch], axis=1)
        solution = np.linalg.lstsq(design, new.reshape(-1), rcond=None)[0]
        misfit = np.abs(design @ solution - new.reshape(-1)).max()
        if not np.isfinite(misfit) or misfit > 1e-4 * max(np.abs(new).max(), 1e-3):
            return None
        found.append((float(solution[0]), float(solution[1])))
    return found or None


def _settled(steps: list[tuple[float, float]] | None) -> tuple[float, float] | None:
    return (round(steps[-1][0], 6), round(steps[-1][1], 6)) if steps else None


def _is_cumulative(steps: list[tuple[float, float]] | None) -> bool:
    if not steps or len(steps) < 3:
        return False
    first = _STEPS - len(steps)
    return all(abs(a - (first + k) / (first + k + 1)) < 0.02 for k, (a, _) in list(enumerate(steps))[1:])


def _replaced(history: list[Values], batches: list[Values]) -> bool:
    first = history[-len(batches)]
    return bool(first.size == batches[0].size and np.allclose(first.reshape(-1), batches[0], rtol=1e-3, atol=1e-4))


def measure_evaluation(lab: "Lab") -> Evaluation:
    """Train on a few batches, evaluate on others, and compare with both kinds of statistics."""
    layer = lab.train()
    x = lab.x(seed=300) * 1.7 - 2.0
    state = layer.read("running_mean", "running_var")
    y = lab.forward(layer, x, training=False)
    if y.shape != x.shape:
        return Evaluation("other", None, None, np.inf)
    running = np.inf
    if len(state) == 2 and all(
        v.size in (1, lab.geometry.shape(lab.rank)[lab.geometry.channel_axis(lab.rank)]) for v in state.values()
    ):
        wanted = definition(
            lab, x, state["running_mean"], state["running_var"], lab.formula.eps if lab.formula else 0.0
        )
        running = float(np.abs(y - wanted).max())
    if running < 10 * TOLERANCE:
        eps, place = _evaluation_eps(lab)
        return Evaluation("running", eps, place, running)
    if lab.formula is not None and float(np.abs(y - lab.formula.apply(x)).max()) < 10 * TOLERANCE:
        return Evaluation("batch", None, None, running)
    if float(np.abs(y - x).max()) < 1e-4:
        return Evaluation("nothing", None, None, running)
    return Evaluation("other", None, None, running)


def definition(lab: "Lab", x: Values, mean: Values, var: Values, eps: float) -> Values:
    """(x - running_mean) / sqrt(running_var + eps), channel by channel."""
    shape = [-1 if axis == lab.geometry.channel_axis(x.ndim) else 1 for axis in range(x.ndim)]
    return np.asarray((x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps))


def _evaluation_eps(lab: "Lab") -> tuple[float | None, str | None]:
    """Give it tiny running variances and read the denominator off its output."""
    layer = lab.train(steps=1)
    slots = layer.read("running_mean", "running_var")
    if len(slots) < 2:
        return None, None
    size = slots["running_var"].size
    var = np.geomspace(1e-16, 1e-3, size) if size > 1 else np.array([1e-6])
    try:
        layer.write(running_mean=np.zeros(size), running_var=var)
        held = layer.read("running_var")["running_var"].reshape(-1)
        x = lab.cast(np.ones(lab.geometry.shape(lab.rank)))
        y = lab.forward(layer, x, training=False)
    except (TargetError, ValueError, TypeError):
        return None, None
    shape = [-1 if axis == lab.geometry.channel_axis(x.ndim) else 1 for axis in range(x.ndim)]
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.abs(1 / y)
    v = np.broadcast_to(held.reshape(shape), d.shape)
    if not np.isfinite(d).all():
        return 0.0, "missing"
    order = np.argsort(v.reshape(-1))
    return place_of_eps(v.reshape(-1)[order][:, None], d.reshape(-1)[order][:, None])
