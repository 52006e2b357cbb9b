"""Gather the measurements into an Identity."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from normkit.checking.errors import TargetError
from normkit.checking.report import Identity
from normkit.checking.rules.base import number

if TYPE_CHECKING:
    from normkit.checking.lab import Lab

_EVALUATION = {
    "running": "normalizes by the running statistics",
    "batch": "normalizes as in training, by the statistics of its input",
    "nothing": "returns its input",
    "other": "something else",
}


def identify(lab: "Lab") -> Identity:
    """What the target computes. What cannot be measured stays None."""
    formula = _try(lambda: lab.formula)
    pattern = _try(lab.pattern)
    update = _try(lambda: lab.update)
    evaluation = _try(lambda: lab.evaluation)
    if formula is not None and not formula.fits:
        formula = None
    return Identity(
        library=lab.library.name,
        kind=lab.subject.kind,
        built=lab.subject.built(lab.rank),
        ranks=lab.resolved.ranks,
        layout=lab.geometry.axis_names(lab.rank),
        reduces=_reduces(formula, pattern),
        centred=formula.centred if formula else None,
        variance=("unbiased" if formula.ddof else "biased") if formula else None,
        eps=float(f"{formula.eps:.4g}") if formula and formula.place != "missing" else None,
        eps_place=formula.place if formula else None,
        update_mean=_pair(update.mean) if update else None,
        update_var=_pair(update.var) if update else None,
        running_variance=("unbiased" if update.unbiased else "biased") if update and update.var else None,
        initial={role: _summary(values) for role, values in update.initial.items()} if update else {},
        evaluation=_EVALUATION[evaluation.statistics] if evaluation else None,
        output_shape=_try(lambda: _output_shape(lab)),
        output_dtype=_try(lambda: lab.output_dtypes) or {},
        saved=_try(lambda: _saved(lab)),
        parameters=_try(lambda: _parameters(lab)) or {},
    )


def _try(measure: Callable[[], Any]) -> Any:
    try:
        return measure()
    except TargetError:
        return None


def _reduces(formula: Any, pattern: Any) -> str | None:
    if formula is not None and not formula.mean_over.same(formula.var_over):
        return f"mean: {formula.mean_over.words}; variance: {formula.var_over.words}"
    if formula is not None:
        return str(formula.mean_over.words)
    return None if pattern is None else str(pattern.words)


def _pair(pair: tuple[float, float] | None) -> tuple[float, float] | None:
    if pair is None:
        return None
    old, batch = (float(f"{value:.4g}") + 0.0 for value in pair)  # no negative zero
    return old, batch


def _summary(values: Any) -> str:
    if values.size == 0:
        return "empty"
    low, high = float(np.min(values)), float(np.max(values))
    return number(low) if low == high else f"{number(low)} … {number(high)}"


def _output_shape(lab: "Lab") -> str:
    x = lab.library.make(lab.x())
    y = lab.run(lab.layer(), x)
    return "as the input" if tuple(y.shape) == tuple(x.shape) else f"{tuple(y.shape)} for {tuple(x.shape)}"


def _saved(lab: "Lab") -> tuple[str, ...] | None:
    if not lab.subject.is_module:
        return None
    layer: Any = lab.train(steps=1)
    return tuple(layer.thing.state_dict())


def _parameters(lab: "Lab") -> dict[str, str]:
    slots = lab.layer(neutral=False).slots()
    values = lab.layer(neutral=False).read("weight", "bias")
    words = {}
    for role, held in values.items():
        shape = tuple(getattr(slots[role].read(), "shape", held.shape))
        start = "given by the caller" if lab.subject.kind == "function" else f"starts at {_summary(held)}"
        words[slots[role].path] = f"{shape}, {start}"
    return words
