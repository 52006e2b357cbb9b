"""Find out how to build and call a target: its library, its arguments, the shapes of its input."""

import dataclasses
import inspect
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normkit.checking.options import Options
from normkit.checking.target.arrays import NUMPY, Library, likely_libraries
from normkit.checking.target.builder import Builder, Style, attempt
from normkit.checking.target.callables import definition_of, global_names, libraries_of, name_of, words_in
from normkit.checking.target.cells import slots_in
from normkit.checking.target.claim import Claim, claim_of
from normkit.checking.target.errors import CannotRunError, TargetError
from normkit.checking.target.frameworks import framework_of
from normkit.checking.target.geometry import Geometry
from normkit.checking.target.names import role_of
from normkit.checking.target.refusal import Tried, nothing_ran, unfillable
from normkit.checking.target.shared import SharedState
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.stand_ins import for_call, for_constructor
from normkit.checking.target.state import as_values, slots_by_name
from normkit.checking.target.styles import kinds, methods, shapes

_RANKS = {
    "batch": (4, 3, 5, 2),
    "group": (4, 3, 5, 2),
    "instance": (4, 3, 5),
    "layer": (3, 4, 5, 2),
    "rms": (3, 4, 5, 2),
}
_ANY_RANK = (4, 3, 5, 2)  # 2 comes last: it does not tell the layouts apart
_MOST_ATTEMPTS = 4000


@dataclass(frozen=True)
class Candidate:
    """A way to call a target that runs.

    Args:
        builder: How to build and call it.
        claim: What it says it is.
        rank: The rank of the input on which it ran.
    """

    builder: Builder
    claim: Claim
    rank: int


@dataclass(frozen=True)
class Resolved:
    """A target that runs.

    Args:
        builder: How to build and call it.
        claim: What it says it is.
        ranks: The input ranks that it takes.
        refused: For the ranks that it does not take: what it raised.
        rank: The one that told how to call it; None where no single one did.
    """

    builder: Builder
    claim: Claim
    ranks: tuple[int, ...]
    refused: dict[int, str]
    rank: int | None = None


@dataclass
class _Outcome:
    """What the attempts gave: those that ran, those that gave another shape, and what the others raised."""

    running: list[tuple[Builder, int]] = field(default_factory=list)
    misshapen: list[tuple[Builder, int]] = field(default_factory=list)
    tried: list[Tried] = field(default_factory=list)


def resolve(target: Any, options: Options) -> list[Candidate]:
    """Try the ways to build and call ``target``; return those that run, the likeliest first.

    There may be several: code that broadcasts takes channels first and last without an error. What it averages over
    tells which of them is meant.

    Raises:
        CannotRunError: none runs; the message lists what was tried and the options that would help.
    """
    _require_callable(target)
    methods(target, options.method)  # an unknown one is refused first
    claim = claim_of(target, options)
    if framework_of(target) == "equinox" and claim.family in ("layer", "rms"):
        claim = dataclasses.replace(claim, ranks=(2,))  # a sample has no axes but those of its features
    outcome = _Outcome()
    try:
        ways = itertools.groupby(_ways(target, claim, options), lambda way: way[0])
        for _, group in ways:
            _try(itertools.islice((way[1:] for way in group), _MOST_ATTEMPTS), outcome)
            if outcome.running:
                return [Candidate(builder, claim, rank) for builder, rank in outcome.running]
    except UnfillableError as error:
        if not outcome.tried:
            raise CannotRunError(unfillable(target, error)) from error
    if outcome.misshapen:
        builder, rank = outcome.misshapen[0]
        return [Candidate(builder, claim, rank)]
    raise CannotRunError(nothing_ran(target, outcome.tried))


def _try(ways: Iterator[tuple[Builder, int]], outcome: _Outcome) -> None:
    for builder, rank in ways:
        try:
            shape = attempt(builder, rank)
        except (TargetError, UnfillableError, TypeError) as error:
            outcome.tried.append(Tried(builder, rank, error))
            continue
        fits = shape == builder.geometry.shape(rank)
        (outcome.running if fits else outcome.misshapen).append((builder, rank))


def accept(builder: Builder, claim: Claim) -> Resolved:
    """Find out which input ranks a target that runs takes."""
    ranks: list[int] = []
    resized: list[int] = []
    refused: dict[int, str] = {}
    for rank in (2,) if builder.style.transposed else (2, 3, 4, 5):
        if rank <= len(builder.geometry.features):
            continue
        try:
            shape = attempt(builder, rank)
        except TargetError as error:
            refused[rank] = str(error)
            continue
        if builder.style.one_by_one and shape != builder.geometry.shape(rank):
            refused[rank] = f"it gives shape {shape}"
            continue
        broadcast = len(shape) > rank or np.prod(shape) != np.prod(builder.geometry.shape(rank))
        (resized if broadcast and rank not in claim.ranks else ranks).append(rank)
    if ranks:  # where weight and bias broadcast the input to something larger it is not meant for that rank
        refused.update(dict.fromkeys(resized, "weight and bias broadcast the input to another shape"))
    return Resolved(builder, claim, tuple(ranks or resized), refused)


def _require_callable(target: Any) -> None:
    if not (inspect.isclass(target) or callable(target) or methods(target, None)):
        raise CannotRunError(
            "expected a class, an instance or a function that normalizes, but the target is a "
            f"{type(target).__name__}: name the layer itself"
        )
    if not inspect.isroutine(target) and not hasattr(target, "func") and not methods(target, None):
        raise CannotRunError(
            f"expected a class with forward or __call__: {name_of(target)} has neither, and no method that takes an "
            "input. Pass --method NAME, or --adapter FILE.py:make"
        )


def _ways(target: Any, claim: Claim, options: Options) -> Iterator[tuple[int, Builder, int]]:
    """Yield groups of builders and ranks to try, by number; the likeliest first."""
    usual = _of_samples if framework_of(target) == "equinox" else _plain
    for number, builder in enumerate(built for plain in usual(target, options) for built in _filled(plain)):
        yield from ((number, *way) for way in _shaped(builder, claim))


def _plain(target: Any, options: Options) -> Iterator[Builder]:
    """Yield the usual ways to use a target: on arrays of a batch, then on lists of numbers and single samples."""
    shared = SharedState(definition_of(target))
    of = {kind: _geometry_of(target, kind, options) for kind in kinds(target)}
    for batch, library, kind in itertools.product((None, 4, 2), libraries_of(target), of):
        geometry = of[kind] if batch is None else dataclasses.replace(of[kind], batch=batch)
        for method in methods(target, options.method):
            yield Builder(target, kind, library, geometry, options, shared, Style(method=method))
    kind = next(iter(of))
    for lists, one_by_one in ((True, False), (False, True), (True, True)):
        for method in methods(target, options.method):
            style = Style(method=method, lists=lists, one_by_one=one_by_one)
            yield Builder(target, kind, NUMPY, of[kind], options, shared, style)


def _of_samples(target: Any, options: Options) -> Iterator[Builder]:
    """Yield the ways to use a target that takes one sample at a time, as layers of Equinox do."""
    shared = SharedState(definition_of(target))
    for kind, library, method in itertools.product(
        kinds(target), libraries_of(target), methods(target, options.method)
    ):
        style = Style(method=method, one_by_one=True)
        yield Builder(target, kind, library, _geometry_of(target, kind, options), options, shared, style)


def _shaped(builder: Builder, claim: Claim) -> Iterator[tuple[Builder, int]]:
    """Vary the rank, the shapes of parameters and the layout."""
    last_first = claim.family in ("layer", "rms") or builder.options.convention in ("keras", "flax")
    layouts = (last_first, not last_first) if len(builder.geometry.features) == 1 else (True,)
    ranks = tuple(reversed(claim.ranks)) or _RANKS.get(claim.family or "", _ANY_RANK)
    variants = list(shapes(builder))[: 3 if builder.library.compiles else None]
    if variants[0].style.transposed and 2 in (claim.ranks or (2,)):
        yield variants[0], 2
    pairs: Iterable[tuple[int, Builder]] = itertools.product(ranks, variants)
    if claim.family in ("layer", "rms"):  # parameters are of the features' shape nearly always, at every rank
        pairs = ((rank, variant) for variant, rank in itertools.product(variants, ranks))
    for rank, variant in pairs:
        if variant.style.transposed:
            if rank == 2 and variant is not variants[0]:
                yield variant, 2
            continue
        for last in layouts:
            keeps = variant.style.parameters in ("flat", "number", "keepdims")
            if rank > len(builder.geometry.features) and (keeps or not last):
                yield variant.with_geometry(last=last), rank


def _filled(builder: Builder) -> Iterator[Builder]:
    """Give a value to arguments that have no default and a name that tells nothing."""
    constructor = builder.constructor()
    if constructor is None:
        inside: list[tuple[tuple[str, Any], ...]] = [()]
    else:
        names = constructor.unfilled(builder.arguments({}))
        inside = list(for_constructor(constructor, names, builder.geometry))
    for filling in inside:
        built = builder.with_style(stand_ins=filling)
        try:
            call = built.call()
            kept = {switch.name for switch in built.build(4).mode}
        except (UnfillableError, TargetError):
            yield built  # what is wrong with it shows when it is tried
            continue
        names = [name for name in call.unfilled(built.arguments({})) if name not in kept]
        names = [name for name in names if call.roles[name] not in _PASSED]
        words = words_in(definition_of(builder.target))
        for further in for_call(call, names, words, built.geometry):
            yield built.with_style(stand_ins=(*filling, *further))


_PASSED = ("weight", "bias", "running_mean", "running_var", "settings")


def _geometry_of(target: Any, kind: str, options: Options) -> Geometry:
    """The numbers of features and groups that the user or an instance fixes."""
    geometry = Geometry()
    fixed: dict[str, Any] = {}
    if kind in ("module", "object"):
        fixed = {name: value for name, value in vars(target).items() if isinstance(value, int | tuple)}
    fixed = {**fixed, **options.init, **options.call}
    by_role = {role_of(name): value for name, value in fixed.items() if not isinstance(value, bool | str)}
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
        size = _first_size(instance, library)
        if size is not None:
            return size
    return None


def _first_size(instance: Any, library: Library) -> int | None:
    named = slots_by_name(slots_in(instance), library).values()
    for slot in (*named, *slots_in(instance)):
        held = slot.read()
        if library.owns(held) and as_values(library, held).size > 1:
            return int(as_values(library, held).size)
    return None
