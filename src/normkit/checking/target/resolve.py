"""Find out how to build and call a target: its library, its arguments, the shapes of its input."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from normkit.checking.options import Options
from normkit.checking.target.arrays import likely_libraries
from normkit.checking.target.builder import Builder, attempt, variants
from normkit.checking.target.callables import forward_of, global_names, kind_of, libraries_of, name_of
from normkit.checking.target.claim import Claim, claim_of
from normkit.checking.target.errors import CannotRunError, TargetError
from normkit.checking.target.geometry import Geometry
from normkit.checking.target.names import role_of
from normkit.checking.target.returned import returned_roles
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.state import as_values, find_slots

_RANKS = {
    "batch": (4, 3, 5, 2),
    "group": (4, 3, 5, 2),
    "instance": (4, 3, 5),
    "layer": (3, 4, 5, 2),
    "rms": (3, 4, 5, 2),
}
_ANY_RANK = (4, 3, 5, 2)  # 2 comes last: it does not tell the layouts apart
_SHOWN_ATTEMPTS = 6


@dataclass(frozen=True)
class Resolved:
    """A target that runs.

    Args:
        builder: How to build and call it.
        claim: What it says it is.
        ranks: The input ranks that it takes.
        refused: For the ranks that it does not take: what it raised.
    """

    builder: Builder
    claim: Claim
    ranks: tuple[int, ...]
    refused: dict[int, str]


def resolve(target: Any, options: Options) -> list[Resolved]:
    """Try the ways to build and call ``target``; return all that run with the first library and rank that do.

    There may be two: code that broadcasts takes channels first and last without an error. What it averages over tells
    which of them is meant.

    Raises:
        CannotRunError: none runs; the message lists what was tried and the options that would help.
    """
    _require_callable(target)
    claim = claim_of(target, options)
    tried: list[str] = []
    misshapen: list[Builder] = []
    attempts = itertools.groupby(_attempts(target, claim, options), lambda a: (a[0].library, a[0].geometry.batch, a[1]))
    for (_, _, rank), group in attempts:
        running: list[Builder] = []
        for builder, _ in group:
            try:
                shape = attempt(builder, rank)
            except TargetError as error:
                tried.append(f"{_call_repr(builder, rank)}: {error}")
                continue
            except (UnfillableError, TypeError) as error:
                raise CannotRunError(_unfillable(target, error)) from error
            (running if shape == builder.geometry.shape(rank) else misshapen).append(builder)
        if running:
            candidates = [accept(builder, claim) for builder in running]
            return [candidate for candidate in candidates if len(candidate.ranks) >= len(candidates[0].ranks)]
    if misshapen:
        return [accept(misshapen[0], claim)]
    raise CannotRunError(_nothing_ran(target, tried))


def accept(builder: Builder, claim: Claim) -> Resolved:
    """Find out which input ranks a target that runs takes, and what its further results are."""
    ranks: list[int] = []
    resized: list[int] = []
    refused: dict[int, str] = {}
    for rank in (2, 3, 4, 5):
        if rank <= len(builder.geometry.features):
            continue
        try:
            shape = attempt(builder, rank)
        except TargetError as error:
            refused[rank] = str(error)
            continue
        broadcast = len(shape) > rank or np.prod(shape) > np.prod(builder.geometry.shape(rank))
        (resized if broadcast and rank not in claim.ranks else ranks).append(rank)
    if ranks:  # where weight and bias broadcast the input to something larger it is not meant for that rank
        refused.update(dict.fromkeys(resized, "weight and bias broadcast the input to another shape"))
    ranks = ranks or resized
    if builder.kind == "function":
        builder = dataclasses.replace(builder, returned=returned_roles(builder, ranks))
    return Resolved(builder, claim, tuple(ranks), refused)


def _require_callable(target: Any) -> None:
    if not (inspect.isclass(target) or callable(target) or callable(getattr(target, "forward", None))):
        raise CannotRunError(
            "expected a class, an instance or a function that normalizes, but the target is a "
            f"{type(target).__name__}: name the layer itself"
        )
    try:
        forward_of(target, kind_of(target))
    except TypeError as error:
        raise CannotRunError(f"expected a class with forward or __call__: {error}") from error


def _attempts(target: Any, claim: Claim, options: Options) -> Iterator[tuple[Builder, int]]:
    """Yield the builders to try, each with the rank of the input to try it on, the likeliest first."""
    kind = kind_of(target)
    base = _geometry_of(target, kind, options)
    last_first = claim.family in ("layer", "rms") or options.convention in ("keras", "flax")
    layouts = (last_first, not last_first) if len(base.features) == 1 else (True,)
    ranks = tuple(reversed(claim.ranks)) or _RANKS.get(claim.family or "", _ANY_RANK)
    for batch, library in itertools.product((base.batch, 4, 2), libraries_of(target)):
        for rank, keepdims, last in itertools.product(ranks, (False, True), layouts):
            geometry = dataclasses.replace(base, last=last, batch=batch)
            if rank > len(geometry.features):
                for builder in variants(Builder(target, kind, library, geometry, options), keepdims=keepdims):
                    yield builder, rank


def _geometry_of(target: Any, kind: str, options: Options) -> Geometry:
    """The numbers of features and groups that the user or an instance fixes."""
    geometry = Geometry()
    fixed: dict[str, Any] = {}
    if kind in ("module", "object"):
        fixed = {name: value for name, value in vars(target).items() if isinstance(value, int | tuple)}
    fixed = {**fixed, **options.init, **options.call}
    by_role = {role_of(name): value for name, value in fixed.items() if not isinstance(value, bool)}
    features = options.features or by_role.get("features")
    if features is None and kind in ("module", "object"):
        features = _number_of_features(target)
    if features is not None:
        sizes = features if isinstance(features, tuple | list) else (features,)
        geometry = dataclasses.replace(geometry, features=tuple(int(size) for size in sizes))
    if isinstance(by_role.get("groups"), int):
        geometry = dataclasses.replace(geometry, groups=by_role["groups"])
    return geometry


def _number_of_features(instance: Any) -> int | None:
    """The size of the first array that an instance holds."""
    for library in likely_libraries(global_names(type(instance))):
        for slot in find_slots(instance, library).values():
            size = as_values(library, slot.read()).size
            if size > 1:
                return int(size)
    return None


def _call_repr(builder: Builder, rank: int) -> str:
    try:
        return builder.call_repr(rank)
    except (UnfillableError, TypeError):
        return name_of(builder.target)


def _unfillable(target: Any, error: BaseException) -> str:
    return f"cannot work out how to use {name_of(target)}: {error}. Pass --init NAME=VALUE or --call NAME=VALUE"


def _nothing_ran(target: Any, tried: list[str]) -> str:
    distinct = list(dict.fromkeys(tried))
    lines = [f"cannot work out how to run {name_of(target)}. Tried:"]
    lines += [f"  - {line}" for line in distinct[:_SHOWN_ATTEMPTS]]
    if len(distinct) > _SHOWN_ATTEMPTS:
        lines.append(f"  - and {len(distinct) - _SHOWN_ATTEMPTS} more")
    lines += [
        "What would help:",
        "  --init NAME=VALUE   an argument of the constructor",
        "  --call NAME=VALUE   an argument of the forward call",
        "  --features N        the number of channels or features it is made for",
        "  --as FAMILY         batch, layer, group, instance or rms (sets the shapes that are tried first)",
    ]
    return "\n".join(lines)
