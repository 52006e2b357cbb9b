"""Find out how to build and call a target: its library, its arguments, the shape of its input, what it claims to be."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from normkit.checking.arrays import JAX, TORCH, Library, likely_libraries
from normkit.checking.callables import forward_of, kind_of, name_of
from normkit.checking.errors import CannotRunError, TargetError
from normkit.checking.names import family_of, ranks_of, role_of
from normkit.checking.options import Options
from normkit.checking.signature import UnfillableError
from normkit.checking.slots import as_values, find_slots
from normkit.checking.subject import Geometry, Subject, attempt, variants

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
class Claim:
    """What a target says it is, before anything is measured.

    Args:
        family: The family, or None where nothing tells.
        reason: What told.
        ranks: The input ranks that its name promises; empty for none in particular.
    """

    family: str | None
    reason: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Resolved:
    """A target that runs.

    Args:
        subject: How to build and call it.
        claim: What it says it is.
        ranks: The input ranks that it takes.
        refused: For the ranks that it does not take: what it raised.
    """

    subject: Subject
    claim: Claim
    ranks: tuple[int, ...]
    refused: dict[int, str]


def resolve(target: Any, options: Options) -> list[Resolved]:
    """Try the ways to build and call ``target``; all those that run with the first library and rank that do.

    There may be two: code that broadcasts takes channels first and last without an error. What it averages over tells
    which of them is meant.

    Raises:
        CannotRunError: none runs; the message lists what was tried and the options that would help.
    """
    if not (inspect.isclass(target) or callable(target) or callable(getattr(target, "forward", None))):
        raise CannotRunError(
            "expected a class, an instance or a function that normalizes, but the target is a "
            f"{type(target).__name__}: name the layer itself"
        )
    try:
        forward_of(target, kind_of(target))
    except TypeError as error:
        raise CannotRunError(f"expected a class with forward or __call__: {error}") from error
    claim = claim_of(target, options)
    tried: list[str] = []
    misshapen: list[Subject] = []
    ways = itertools.groupby(
        _ways(target, claim, options), lambda way: (way[0].library.name, way[0].geometry.batch, way[1])
    )
    for (_, _, rank), group in ways:
        running: list[Subject] = []
        for subject, _ in group:
            try:
                shape = attempt(subject, rank)
            except TargetError as error:
                tried.append(f"{_way(subject, rank)}: {error}")
                continue
            except (UnfillableError, TypeError) as error:
                raise CannotRunError(_unfillable(target, error)) from error
            (running if shape == subject.geometry.shape(rank) else misshapen).append(subject)
        if running:
            accepted = [accept(subject, claim) for subject in running]
            return [way for way in accepted if len(way.ranks) >= len(accepted[0].ranks)]
    if misshapen:
        return [accept(misshapen[0], claim)]
    raise CannotRunError(_nothing_ran(target, tried))


def claim_of(target: Any, options: Options) -> Claim:
    """Family and ranks, from the options, the name, the ancestors' names or the arguments."""
    kind = kind_of(target)
    owner = target if inspect.isclass(target) or kind == "function" else type(target)
    lineage = [name_of(owner)]
    if inspect.isclass(owner):
        lineage += [f"{base.__name__}" for base in owner.__mro__[1:]]
    by_name = next((name for name in lineage if family_of(name)), None)
    family, reason = options.family, "as you said"
    if family is None and by_name is not None:
        family = family_of(by_name)
        reason = "by its name" if by_name == lineage[0] else f"as a subclass of {by_name}"
    if family is None:
        family, reason = _by_arguments(target, options)
    ranks = next((found for name in lineage if (found := ranks_of(name, family))), ())
    return Claim(family, reason, options.ranks or ranks)


def _by_arguments(target: Any, options: Options) -> tuple[str | None, str]:
    library = TORCH
    try:
        subject = Subject(target, kind_of(target), library, Geometry(), options)
        if subject.accepts("groups"):
            return "group", "by its argument for groups"
        if subject.accepts("running_mean") or subject.accepts("momentum"):
            return "batch", "by its arguments for running statistics"
        names = {name for signature in subject.signatures() for name in signature.parameters}
    except (UnfillableError, TypeError):
        return None, ""
    if "normalized_shape" in names:
        return "layer", "by its argument normalized_shape"
    return None, ""


def _ways(target: Any, claim: Claim, options: Options) -> Iterator[tuple[Subject, int]]:
    kind = kind_of(target)
    base = _geometry_of(target, kind, options)
    last_first = claim.family in ("layer", "rms") or options.convention in ("keras", "flax")
    layouts = (last_first, not last_first) if len(base.features) == 1 else (True,)
    ranks = tuple(reversed(claim.ranks)) or _RANKS.get(claim.family or "", _ANY_RANK)
    for batch, library in itertools.product((base.batch, 4, 2), libraries_of(target)):
        for rank, keepdims, last in itertools.product(ranks, (False, True), layouts):
            geometry = dataclasses.replace(base, last=last, batch=batch)
            if rank > len(geometry.features):
                for subject in variants(Subject(target, kind, library, geometry, options), keepdims):
                    yield subject, rank


def _geometry_of(target: Any, kind: str, options: Options) -> Geometry:
    geometry = Geometry()
    given: dict[str, Any] = {}
    if kind in ("module", "object"):
        given = {name: value for name, value in vars(target).items() if isinstance(value, int | tuple)}
    given = {**given, **options.init, **options.call}
    by_role = {role_of(name): value for name, value in given.items() if not isinstance(value, bool)}
    features = options.features or by_role.get("features")
    if features is None and kind in ("module", "object"):
        features = _size_held(target)
    if features is not None:
        sizes = features if isinstance(features, tuple | list) else (features,)
        geometry = dataclasses.replace(geometry, features=tuple(int(size) for size in sizes))
    if isinstance(by_role.get("groups"), int):
        geometry = dataclasses.replace(geometry, groups=by_role["groups"])
    return geometry


def _size_held(thing: Any) -> int | None:
    for library in likely_libraries(_names_in(type(thing))):
        for slot in find_slots(thing, library).values():
            size = as_values(library, slot.read()).size
            if size > 1:
                return int(size)
    return None


def libraries_of(target: Any) -> list[Library]:
    """The libraries whose arrays a target may work on, the likeliest first."""
    kind = kind_of(target)
    if "module" in kind:
        return [TORCH]
    owner = target if inspect.isclass(target) or kind == "function" else type(target)
    libraries = likely_libraries(_names_in(owner))
    if JAX not in libraries and "jax" in getattr(inspect.getmodule(owner), "__dict__", {}):
        libraries.insert(0, JAX)
    return libraries


def _names_in(owner: Any) -> set[str]:
    """Every global name that the code of a function, or of a class's methods, refers to."""
    functions = [owner] if inspect.isroutine(owner) else [f for f in vars(owner).values() if inspect.isroutine(f)]
    names: set[str] = set()
    for function in functions:
        code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
        if code is not None:
            names |= set(code.co_names)
    return names


def accept(subject: Subject, claim: Claim) -> Resolved:
    """Find out which input ranks a target that runs takes, and what its further results are."""
    from normkit.checking.returned import returned_roles

    ranks: list[int] = []
    resized: list[int] = []
    refused: dict[int, str] = {}
    for rank in (2, 3, 4, 5):
        if rank <= len(subject.geometry.features):
            continue
        try:
            shape = attempt(subject, rank)
        except TargetError as error:
            refused[rank] = str(error)
            continue
        broadcast = len(shape) > rank or np.prod(shape) > np.prod(subject.geometry.shape(rank))
        (resized if broadcast and rank not in claim.ranks else ranks).append(rank)
    if ranks:  # where weight and bias broadcast the input to something larger it is not meant for that rank
        refused.update(dict.fromkeys(resized, "weight and bias broadcast the input to another shape"))
    ranks = ranks or resized
    if subject.kind == "function":
        subject = dataclasses.replace(subject, returned=returned_roles(subject, ranks))
    return Resolved(subject, claim, tuple(ranks), refused)


def _way(subject: Subject, rank: int) -> str:
    try:
        return subject.built(rank)
    except (UnfillableError, TypeError):
        return name_of(subject.target)


def _unfillable(target: Any, error: BaseException) -> str:
    return f"cannot work out how to use {name_of(target)}: {error}. Say it with --init NAME=VALUE or --call NAME=VALUE"


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
