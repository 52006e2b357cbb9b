"""convert: the batch norms of a model become other norms, proven on an example, and all or nothing."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.model.classes import base_class, remembered, require_module
from normkit.model.convert.change import ALREADY, LOSSLESS, Change, change_of
from normkit.model.convert.groups import Groups
from normkit.model.convert.moments import Measured, Rescaling, measure
from normkit.model.convert.proof import Seen, drift, observe
from normkit.model.convert.report import Conversion, Converted, Drift, Match
from normkit.model.data import Forward, batches_of, unwrapped
from normkit.model.frozen import Frozen
from normkit.model.norms import Names, NormLayer, chosen_norms
from normkit.model.summary import Skipped

__all__ = ["convert"]

_ROUNDING: Final = 1e-5
"""How far results may move, relative to their size, where a conversion changes no number."""


def convert(
    model: nn.Module,
    to: str,
    *,
    groups: Groups = None,
    include: Names = "*",
    example: Any = None,
    data: Iterable[Any] | None = None,
    forward: Forward | None = None,
) -> Conversion:
    r"""Make the batch norms of a model other norms, in place.

    A layer stays the same object with the same weight and bias, hooks, mode and name; its class changes. An optimizer
    stays valid, and shared layers stay shared. If anything fails or is interrupted, the model is what it was.

    - "group": as many groups as divide the channels, up to 32, with at least 4 channels each; one group else.
    - "layer": over the channels at each position (:class:`LayerNorm2d`), for (N, C) and (N, C, \*).
    - "instance": over the positions of each channel; needs some.
    - "frozen" and "sync": :func:`freeze` and :func:`convert_sync_batchnorm`.
    - "batch": back from "frozen" and "sync". From the others there is no way back: they have no running statistics.

    Args:
        model: The model, or a single layer.
        to: One of these.
        groups: For "group": their number, or a function that returns it for a number of channels.
        include: Patterns of names of layers to convert, as ``"backbone.*"``, or several.
        example: A batch. The results of the model in evaluation before and after are compared on it, and a layer that
            would take statistics from single values is left.
        data: Batches, as a loader or a list, on which weights and biases of the new norms are rescaled: each returns
            the mean and the variance of each channel that the batch norm returned in evaluation. It takes two passes
            and one for each layer. The first batch is the example, if there is no other.
        forward: How to run the model on a batch, as ``lambda model, batch: model(batch["image"])``.
    Returns:
        What was converted, what was left and why, what checkpoints fit, and the drift. Print it.
    Raises:
        UserError: no such target; no norm that can become it; groups that do not divide the channels; the converted
            model raises, returns NaN or infinity, or, where nothing is to change, something else than before.

    >>> import torch, normkit
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 3), torch.nn.BatchNorm2d(16))
    >>> print(normkit.convert(model, "group"))
    convert: 1 layer to group
      1 × BatchNorm2d -> GroupNorm (4 groups): 1
      checkpoints from before load; 3 keys of them, running statistics, are ignored
    """
    _require_convertible(model, to, groups, data)
    if data is not None and example is None:
        example = next(iter(batches_of(data, "convert")), None)
        if example is None:
            raise UserError("convert got no batch of `data`")
    norms = chosen_norms(model, include)
    seen = None if example is None else _observed(model, example, forward, norms)
    plan = _plan(norms, to, groups, seen)
    targets = {} if data is None else measure(model, [change.norm for change in plan.changes], data, forward)
    job = _Job(model, example, data, forward, to, seen, targets)
    keys = list(model.state_dict())
    with ExitStack() as undo:
        converted, left = _apply(plan, undo)
        drifts, matched = _prove(job, converted, undo)
        undo.pop_all()
    now = set(model.state_dict())
    return Conversion(
        to,
        tuple(one for _, one in converted),
        (*plan.left, *left),
        plan.already,
        tuple(key for key in keys if key not in now),
        *drifts,
        matched,
    )


class _Job(NamedTuple):
    """What is converted, and what it is tried on."""

    model: nn.Module
    example: Any
    data: Iterable[Any] | None
    forward: Forward | None
    to: str
    seen: Seen | None
    targets: dict[str, Measured]


class _Plan(NamedTuple):
    """What is to be done."""

    changes: Sequence[Change]
    left: Sequence[Skipped]
    already: int


def _require_convertible(model: nn.Module, to: str, groups: Groups, data: Iterable[Any] | None) -> None:
    require_module(model, "convert")
    if to not in ALREADY:
        raise UserError(f"`to` must be one of {', '.join(ALREADY)}; got {to!r}{did_you_mean(to, ALREADY)}")
    if groups is not None and to != "group":
        raise UserError(f"`groups` belong to a group norm: drop them, or the `to={to}`")
    if data is not None and to in LOSSLESS:
        raise UserError(f"`data` rescale weights, and `to={to}` changes no number: drop them, or give an `example`")
    if isinstance(data, Iterator):
        raise UserError(
            "convert goes over `data` several times; an iterator is used up after the first: give a loader or a list"
        )
    if any(unwrapped(part) is not part for part in model.modules()):
        raise UserError("convert expected a model that is not wrapped or compiled: convert it first, and wrap it then")


def _plan(norms: Sequence[NormLayer], to: str, groups: Groups, seen: Seen | None) -> _Plan:
    changes: list[Change] = []
    left: list[Skipped] = []
    already = 0
    for norm in norms:
        if ALREADY[to](norm):
            already += 1
            continue
        found = change_of(norm, to, groups)
        why = found if isinstance(found, str) else _single_values(found, to, None if seen is None else seen.shapes)
        if isinstance(found, str) or why is not None:
            left.append(Skipped(norm.name, base_class(norm.module).__name__, why or ""))
        else:
            changes.append(found)
    if left and not changes and not already:
        reasons = "; ".join(sorted({f"{one.name or 'the model itself'}: {one.reason}" for one in left})[:3])
        raise UserError(f"convert found no norm that can become {to!r} ({reasons}{' …' * (len(left) > 3)})")
    return _Plan(changes, left, already)


def _single_values(change: Change, to: str, shapes: dict[str, list[tuple[int, ...]]] | None) -> str | None:
    """Say so where a statistic would be taken from one value."""
    source = change.source
    if source is None or to == "layer":
        return None
    channels = 1 if change.groups is None else source.channels // change.groups
    inputs = (shapes or {}).get(change.norm.name)
    if inputs is not None:
        single = next((shape for shape in inputs if channels * math.prod(shape[2:]) < 2), None)
        return None if single is None else f"of an input {single} each {_SETS[to]} would be one value"
    if channels == 1 and source.takes_features and to == "group":
        return "of an input (N, C) each group would be one value: give an `example` if its inputs have more axes"
    return None


_SETS: Final = {"group": "group", "instance": "channel of a sample"}


def _apply(plan: _Plan, undo: ExitStack) -> tuple[list[tuple[NormLayer, Converted]], list[Skipped]]:
    converted: list[tuple[NormLayer, Converted]] = []
    left: list[Skipped] = []
    for change in plan.changes:
        norm = change.norm
        before = _title(norm.module)
        undo.callback(remembered(norm.module))
        why = change.apply()
        if why is not None:
            left.append(Skipped(norm.name, before, why))
            continue
        converted.append((norm, Converted(norm.name, before, _title(norm.module), change.groups)))
    return converted, left


def _title(layer: nn.Module) -> str:
    return f"{'frozen ' * isinstance(layer, Frozen)}{base_class(layer).__name__}"


def _prove(
    job: _Job, converted: Sequence[tuple[NormLayer, Converted]], undo: ExitStack
) -> tuple[tuple[Drift | None, Drift | None], tuple[Match, ...]]:
    """Return the drift, that before rescaling, and what rescaling came to; raise where the model cannot be used."""
    if job.seen is None or not converted:
        return (None, None), ()
    moved = _drift(job, job.seen)
    if job.to in LOSSLESS and moved.relative > _ROUNDING:
        raise UserError(
            f"nothing was converted: {job.to!r} is to change no number, and the result on the example moved by "
            f"{moved.relative:.1e} of its size"
        )
    if job.data is None:
        return (moved, None), ()
    by_name = {norm.name: norm for norm, _ in converted}
    ran = [by_name[name] for name in job.targets if name in by_name]
    for norm in ran:
        undo.callback(_values(norm.module))
    matched = Rescaling(job.targets, ran).run(job.model, job.data, job.forward)
    return (_drift(job, job.seen), moved), matched


def _values(layer: nn.Module) -> Callable[[], None]:
    """Return a function that writes the values of a layer's parameters back."""
    saved = [(parameter, parameter.detach().clone()) for parameter in layer.parameters(recurse=False)]

    def undo() -> None:
        with torch.no_grad():
            for parameter, value in saved:
                parameter.copy_(value)

    return undo


def _observed(model: nn.Module, example: Any, forward: Forward | None, norms: Sequence[NormLayer]) -> Seen:
    try:
        return observe(model, example, forward, norms)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"the model raises {type(error).__name__} on the example: {error}") from error


def _drift(job: _Job, before: Seen) -> Drift:
    try:
        after = observe(job.model, job.example, job.forward)
    except Exception as error:
        raise UserError(
            f"nothing was converted: the model would raise {type(error).__name__} on the example: {error}"
        ) from error
    found = drift(before, after)
    if found is None:
        raise UserError("convert found no tensors to compare in what the model returns: give `forward`, which does")
    if _is_finite(before.results) and not _is_finite(after.results):
        raise UserError("nothing was converted: the model would return NaN or infinity on the example")
    return found


def _is_finite(results: Sequence[Tensor]) -> bool:
    return all(bool(result.isfinite().all()) for result in results)
