"""Gather the measurements into an Identity."""

from collections.abc import Callable
from typing import Any, TypeVar

from normkit.checking.measure.formula import Formula
from normkit.checking.measure.lab import Measurements
from normkit.checking.measure.running_stats import Evaluation
from normkit.checking.measure.torchs_own import torchs_own
from normkit.checking.patterns import Pattern, Values
from normkit.checking.report import Identity, interval
from normkit.checking.target.errors import TargetError
from normkit.checking.target.state import AFFINE

T = TypeVar("T")

_EVALUATION = {
    "running": "normalizes by the running statistics",
    "batch": "normalizes as in training, by the statistics of its input",
    "nothing": "returns its input",
    "other": "something else",
}


def identify(probe: Measurements) -> Identity:
    """Say what the target computes. What cannot be measured stays None."""
    formula = _try(lambda: probe.formula)
    pattern = _try(probe.pattern)
    update = _try(lambda: probe.update)
    evaluation = _try(lambda: probe.evaluation)
    if formula is not None and not formula.fits:
        formula = None
    return Identity(
        library=probe.library.name,
        kind=probe.builder.kind,
        built=probe.builder.call_repr(probe.rank),
        ranks=probe.resolved.ranks,
        layout=probe.builder.axis_names(probe.rank),
        reduces=_reduces(formula, pattern),
        centred=formula.subtract_mean if formula else None,
        variance=("unbiased" if formula.ddof else "biased") if formula and not probe.undoes else None,
        eps=float(f"{formula.eps:.4g}") if formula and formula.eps_place != "missing" else None,
        eps_place=formula.eps_place if formula else None,
        update_mean=_pair(update.mean) if update else None,
        update_var=_pair(update.var) if update else None,
        batch_weights=update.weights if update and update.mean else None,
        running_variance=("unbiased" if update.unbiased else "biased") if update and update.var else None,
        initial={role: _summary(values) for role, values in update.initial.items()} if update else {},
        runs=_try(lambda: torchs_own(probe)),
        evaluation=_evaluation(evaluation) if evaluation else None,
        output_shape=_try(lambda: _output_shape(probe)),
        output_dtype=_try(lambda: probe.output_dtypes) or {},
        saved=_try(lambda: _saved(probe)),
        parameters=_try(lambda: _parameters(probe)) or {},
    )


def _evaluation(evaluation: Evaluation) -> str:
    words = _EVALUATION[evaluation.statistics]
    return words if evaluation.shape is None else f"{words}, of shape {evaluation.shape}"


def _try(measure: Callable[[], T]) -> T | None:
    try:
        return measure()
    except TargetError:
        return None


def _reduces(formula: Formula | None, pattern: Pattern | None) -> str | None:
    if formula is not None and not formula.mean_over.same(formula.var_over):
        return f"mean: {formula.mean_over.words}; variance: {formula.var_over.words}"
    if formula is not None:
        return formula.mean_over.words
    return None if pattern is None else pattern.words


def _pair(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    if pair is None:
        return None
    old, batch = (float(f"{value:.4g}") + 0.0 for value in pair)  # no negative zero
    return old, batch


def _summary(values: Values) -> str:
    return interval(values.min(), values.max()) if values.size else "empty"


def _output_shape(probe: Measurements) -> str:
    x = probe.library.make(probe.x())
    y = probe.run(probe.layer(), x)
    return "as the input" if tuple(y.shape) == tuple(x.shape) else f"{tuple(y.shape)} for {tuple(x.shape)}"


def _saved(probe: Measurements) -> tuple[str, ...] | None:
    if not probe.builder.is_module:
        return None
    layer: Any = probe.train(steps=1)
    return tuple(layer.instance.state_dict())


def _parameters(probe: Measurements) -> dict[str, str]:
    layer = probe.started()
    slots, values = layer.slots(), layer.read(*AFFINE)
    words = {}
    for role, held in values.items():
        shape = tuple(getattr(slots[role].read(), "shape", held.shape))
        start = "given by the caller" if probe.by_caller else f"starts at {_summary(held)}"
        words[slots[role].path] = f"{shape}, {start}"
    return words
