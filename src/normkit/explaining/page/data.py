"""The numbers of the page: every norm of every input, and running statistics for every momentum."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from normkit.errors import UserError
from normkit.explaining.case import KINDS, Case, case_of
from normkit.explaining.example import Array, example, learned
from normkit.explaining.normalization import Normalization, normalization_of
from normkit.explaining.palette import letters
from normkit.explaining.running import KINDS as RUNNING_KINDS
from normkit.explaining.running import running_statistics
from normkit.explaining.slabs import as_slabs, column_labels, is_cut, parameter, row_labels
from normkit.explaining.text import formula, shape_text
from normkit.spec import Norm

GROUPS: Final = (1, 2, 4)
MOMENTA: Final = tuple(round(0.05 * number, 2) for number in range(21))
STEPS: Final = 10
MOMENTUM: Final = 0.1
"""torch's default, with which the page begins and evaluates."""

LARGEST: Final = 100_000
"""Values of an array of which the page holds every norm."""

DIGITS: Final = 6
"""Decimals that are kept of each number; the page shows two to four."""


@dataclass(frozen=True)
class Input:
    """One input that the page offers.

    Args:
        name: "images", "sequences", "features" or "yours".
        x: Its values.
        channels_last: Whether its channels are the last axis.
    """

    name: str
    x: Array
    channels_last: bool

    @property
    def layout(self) -> str:
        """The layout as the page names it."""
        return "last" if self.channels_last else "first"


def page_data(shown: Normalization | None) -> dict[str, Any]:
    """Return everything that the page may show."""
    inputs = list(_inputs())
    start = {"input": "images", "layout": "first", "norm": "batch", "groups": 2, "mode": "training"}
    choices = {key: entry for one in inputs for key, entry in _choices(one)}
    groups = {*GROUPS}
    if shown is not None:
        case = shown.case
        own = next((one for one in inputs if _is_input(one, shown)), Input("yours", shown.x, case.channels_last))
        start |= {"input": own.name, "layout": own.layout, "norm": case.kind}
        if case.kind == "group":
            start["groups"] = case.norm.num_groups
            groups.add(case.norm.num_groups)
        if own.name == "yours":
            inputs.append(own)
            choices |= dict(_choices(own)) | _own_choice(own, shown)
    return {
        "start": start,
        "norms": list(KINDS),
        "groups": sorted(groups),
        "inputs": {f"{one.name}/{one.layout}": _described(one) for one in inputs},
        "choices": choices,
        "running": _running(),
    }


def _is_input(one: Input, shown: Normalization) -> bool:
    """Whether what was explained is one of the page's inputs, with the page's choices."""
    case = shown.case
    return (
        one.channels_last == case.channels_last
        and np.array_equal(one.x, shown.x)
        and case_of(case.kind, case.shape, channels_last=case.channels_last).norm.normalized_shape
        == case.norm.normalized_shape
        and (case.kind != "group" or case.norm.num_groups in GROUPS)
        and shown.has_initial_parameters
    )


def _own_choice(own: Input, shown: Normalization) -> dict[str, Any]:
    """Return what was explained, in training and in evaluation, with the parameters that came with it."""
    case = shown.case
    entry, evaluated = _entries(own, _with_learned(shown) if shown.has_initial_parameters else shown)
    return {
        choice_key(own.name, own.layout, case.kind, case.norm.num_groups, mode): found
        for mode, found in (("training", entry), ("evaluation", evaluated))
    }


def choice_key(name: str, layout: str, kind: str, groups: int, mode: str) -> str:
    """Return the key of a choice in the page's data."""
    return "/".join((name, layout, kind, str(groups if kind == "group" else 1), mode))


def entry_of(seen: Normalization) -> dict[str, Any]:
    """Return what the page shows of one normalization; arrays cut off where they are larger than it shows."""
    case = seen.case
    shown = sorted({int(number) for number in as_slabs(case, case.sets).flat})
    mean_after, var_after = seen.after
    weight = parameter(case)
    return {
        "layer": case.layer,
        "formula": f"y = {formula(case.kind)}",
        "axes": list(case.axes),
        "shape": shape_text(case.shape),
        "marks": [mark._asdict() for mark in case.marks],
        "reduced": ", ".join(case.reduced),
        "count": case.count,
        "num_sets": case.num_sets,
        "weight_shape": shape_text(case.weight_shape),
        "view": shape_text(case.view.shape),
        "eps": f"{seen.eps:.3g}",
        "running": seen.running,
        "cut": is_cut(case),
        "rows": row_labels(case),
        "columns": column_labels(case),
        "sets": as_slabs(case, case.sets).tolist(),
        "weights": as_slabs(case, case.weights).tolist(),
        "parameter": {"numbers": weight.numbers.tolist(), "below": weight.is_below},
        "weight": _short(seen.weight.reshape(-1)),
        "bias": None if seen.bias is None else _short(seen.bias.reshape(-1)),
        "x": _short(as_slabs(case, seen.x)),
        "deviation": _short(as_slabs(case, seen.deviation)),
        "x_hat": _short(as_slabs(case, seen.x_hat)),
        "y": _short(as_slabs(case, seen.y)),
        "statistics": {
            str(number): {
                "letter": letters(number),
                "mean": _short(seen.mean[number]),
                "var": _short(seen.var[number]),
                "std": _short(seen.std[number]),
                "mean_after": _short(mean_after[number]),
                "var_after": _short(var_after[number]),
            }
            for number in shown
        },
    }


def _inputs() -> Iterator[Input]:
    for name, first, last in (("images", (2, 4, 2, 2), (2, 2, 2, 4)), ("sequences", (2, 4, 3), (2, 3, 4))):
        yield Input(name, example(first), channels_last=False)
        yield Input(name, example(last, channels_last=True), channels_last=True)
    yield Input("features", example((3, 4)), channels_last=False)


def _described(one: Input) -> dict[str, Any]:
    case = Case(Norm("batch"), one.x.shape, one.channels_last)
    return {"axes": f"({', '.join(case.axes)})", "shape": shape_text(one.x.shape)}


def _choices(one: Input) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every norm of an input, in training and in evaluation; what a norm refuses has its reason instead."""
    for kind in KINDS:
        for groups in GROUPS if kind == "group" else (1,):
            try:
                if one.x.size > LARGEST:
                    raise UserError(f"the page shows other norms of arrays of up to {LARGEST:,} values")
                entry, evaluated = _entries(one, _explained(one, kind, groups))
            except UserError as error:  # in the layer's own words
                entry = evaluated = {"refused": str(error)}
            yield choice_key(one.name, one.layout, kind, groups, "training"), entry
            yield choice_key(one.name, one.layout, kind, groups, "evaluation"), evaluated


def _entries(one: Input, trained: Normalization) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the page shows of a norm in training and in evaluation."""
    if trained.case.kind not in RUNNING_KINDS:
        return entry_of(trained), {"same_as_training": True}
    is_own = one.name == "yours"
    evaluated = entry_of(_evaluated(trained, is_own=is_own)) | {"layer": trained.case.layer, "is_own": is_own}
    return entry_of(trained), evaluated


def _explained(one: Input, kind: str, groups: int) -> Normalization:
    """Explain a norm with a weight and a bias that show what they do."""
    case = case_of(kind, one.x.shape, num_groups=groups if kind == "group" else None, channels_last=one.channels_last)
    return _with_learned(normalization_of(case, one.x))


def _with_learned(plain: Normalization) -> Normalization:
    """Return a normalization with a weight and a bias as training may have left them."""
    weight, bias = learned(plain.case.weight_shape)
    return replace(plain, weight=weight, bias=None if plain.bias is None else bias)


def _evaluated(trained: Normalization, *, is_own: bool) -> Normalization:
    """Return the evaluation of the same array by the running statistics of ten steps.

    Args:
        trained: The norm in training.
        is_own: Whether each of the steps saw this array; otherwise they saw other batches of the example.
    """
    case = trained.case
    running = running_statistics(
        case.kind,
        trained.x if is_own else None,
        shape=case.shape,
        steps=STEPS,
        momentum=MOMENTUM,
        channels_last=case.channels_last,
    )
    last = running.steps[-1]
    by_channel = Case(Norm("batch"), case.shape, case.channels_last)
    return replace(trained, case=by_channel, mean=last.mean, var=last.var, running=True)


def _running() -> dict[str, Any]:
    """Return running statistics of a batch norm for every momentum, all channels."""
    by_momentum = {f"{momentum:.2f}": running_statistics(momentum=momentum, steps=STEPS) for momentum in MOMENTA}
    one = by_momentum[f"{MOMENTUM:.2f}"]
    return {
        "layer": one.layer,
        "channels": one.case.weight_shape[0],
        "count": one.case.count,
        "factor": one.case.count / (one.case.count - 1),
        "start": f"{MOMENTUM:.2f}",
        "momenta": list(by_momentum),
        "batch_mean": [_short(step.batch_mean) for step in one.steps],
        "batch_var": [_short(step.batch_var) for step in one.steps],
        "of": {
            momentum: {
                name: [_short(getattr(step, name)) for step in seen.steps]
                for name in ("mean", "var", "var_biased", "torch_mean", "torch_var")
            }
            | {name: _first_values(getattr(seen.evaluation, name)) for name in ("x", "y", "y_biased", "torch_y")}
            | {"left": (1 - float(momentum)) ** STEPS}
            for momentum, seen in by_momentum.items()
        },
    }


def _first_values(values: Array) -> Sequence[Any]:
    """Return the first four values of each channel of (N, C, *)."""
    channels = np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
    return [_short(channel[:4]) for channel in channels]


def _short(values: NDArray[Any] | np.floating[Any]) -> Any:
    return (np.round(values, DIGITS) + 0.0).tolist()
