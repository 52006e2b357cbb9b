"""Choose among the ways to call a target: the one in which its axes are those of a family."""

import dataclasses
import itertools
import re
from collections.abc import Iterator

import numpy as np

from normkit.checking.measure.formula import measure_formula
from normkit.checking.measure.given import best_given, scales
from normkit.checking.measure.gradients import GRADIENT_TOLERANCE, measure_backward
from normkit.checking.measure.modes import find_mode
from normkit.checking.measure.probe import probe_of
from normkit.checking.measure.roles import find_roles
from normkit.checking.options import Options
from normkit.checking.target.callables import backward_of, definition_of
from normkit.checking.target.errors import TargetError
from normkit.checking.target.resolve import Candidate
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.state import AFFINE, RUNNING

_BATCHES = (4, 2, 3)
_FAMILIES = ("batch", "instance", "group", "layer")
_MOST_SWITCHED = 4
_MOST_FITTING = 12
_MOST_EXPLAINED = 40
_RIGHT = 2
_CONSTANT = 1e-4
_COLUMNS = re.compile(
    r"\([^(),]+,\s*(m|batch[ _]?size|batch|(n|number)[ _](of[ _])?(samples|examples))\s*\)", re.IGNORECASE
)


def choose(candidates: list[Candidate], options: Options) -> tuple[Candidate, str | None]:
    """Return the way to call a target, and the family whose axes it has then; None where they are those of none.

    Args:
        candidates: The ways that run, the likeliest first.
        options: What the user fixed.
    """
    claim = candidates[0].claim
    families = _FAMILIES if claim.family is None else (claim.family,)
    found = _first_fit(candidates, families)
    for others in (_switched, _swapped):
        found = found or _first_fit(list(others(candidates)), families)
    if found is None and claim.family == "layer" and options.family is None:
        images = [c for c in candidates if c.rank > 3 or (c.rank == 3 and not c.builder.geometry.last)]
        images.sort(key=lambda candidate: candidate.builder.geometry.last)
        found = _first_fit([_of_one_group(candidate) for candidate in images], ("group",))
    return found or (_without_fit(candidates), None)


def _first_fit(candidates: list[Candidate], families: tuple[str, ...]) -> tuple[Candidate, str] | None:
    """The first candidate whose axes are those of one of the families.

    Where that leaves a choice, the first for which its weight or its hand-written backward pass speaks too.
    """
    fits: list[tuple[bool, int, bool, Candidate, str]] = []
    for candidate, family in itertools.islice(_fitting(candidates, families), _MOST_FITTING):
        better = best_given(candidate, candidates, family)
        if _backward_asks_for_rows(better, family):
            continue
        told = candidate.claim.family is not None or _scales_by_channel(better)
        backward = _backward_speaks(better, family)
        flat = better.builder.style.parameters == "flat" and (not fits or better.rank == fits[0][3].rank)
        fits.append((told, backward, flat, better, family))
        if told and backward == _RIGHT and (flat or candidate.claim.family is not None):
            break
    if not fits:
        return None
    _, _, _, candidate, family = max(fits, key=lambda fit: fit[:3])
    return _refined(candidate, family)


def asks_for_columns(candidate: Candidate, others: list[Candidate], family: str) -> bool:
    """Whether something tells that inputs of shape (C, N) are meant, beside that it is right for them.

    Arrays of shape (C, 1) that it keeps do; of a function whose caller keeps them: that it takes no others, its running
    statistics, its backward pass, or its docstring.
    """
    layer = candidate.builder.build(2)
    if not layer.given:
        return True
    rows = [other for other in others if other.rank == 2 and not other.builder.style.transposed]
    if not rows or {*RUNNING} & {*layer.slots()}:
        return True
    definition = definition_of(candidate.builder.target)
    if _COLUMNS.search(definition.__doc__ or ""):
        return True
    by_hand = candidate.builder.is_function and backward_of(candidate.builder.target) is not None
    return by_hand and not _backward_asks_for_rows(candidate, family)


def _backward_asks_for_rows(candidate: Candidate, family: str) -> bool:
    """Whether a hand-written backward pass gives weight and bias gradients of other sizes for (C, N)."""
    builder = candidate.builder
    if not (builder.style.transposed and builder.is_function and backward_of(builder.target) is not None):
        return False
    try:
        backward = measure_backward(probe_of(candidate, family))
    except (TargetError, UnfillableError):
        return False
    found = backward.gradients.affine if backward.gradients else {}
    return any(values.size != backward.affine[role].size for role, values in found.items() if role in backward.affine)


def _fitting(candidates: list[Candidate], families: tuple[str, ...]) -> Iterator[tuple[Candidate, str]]:
    batches = (candidates[0].builder.geometry.batch, *_BATCHES) if candidates else ()
    for batch in batches:
        found = False
        for candidate, family in itertools.product(candidates, families):
            builder = candidate.builder.with_geometry(batch=batch)
            changed = dataclasses.replace(candidate, builder=builder)
            if _fits(changed, family):
                found = True
                yield changed, family
        if found:
            return


def _scales_by_channel(candidate: Candidate) -> bool:
    """Whether its weight and bias, as far as it has some, belong to the channels of this layout."""
    rank = candidate.rank
    roles = find_roles(candidate.builder, rank, evaluates=False)
    builder = dataclasses.replace(candidate.builder, roles=roles.by_path)
    return scales(dataclasses.replace(candidate, builder=builder))


def _backward_speaks(candidate: Candidate, family: str) -> int:
    """How well the hand-written backward pass suits this layout: 2 where it is right, 1 where it can be called."""
    if not candidate.builder.is_function or backward_of(candidate.builder.target) is None:
        return _RIGHT
    probe = probe_of(candidate, family)
    try:
        backward = measure_backward(probe)
    except (TargetError, UnfillableError):
        return 0
    dx = backward.gradients.dx if backward.gradients else None
    if dx is None or dx.shape != backward.x.shape:
        return 0
    return _RIGHT if backward.error_of(dx) < GRADIENT_TOLERANCE else 1


def _of_one_group(candidate: Candidate) -> Candidate:
    return dataclasses.replace(candidate, builder=candidate.builder.with_geometry(groups=1))


def _refined(candidate: Candidate, family: str) -> tuple[Candidate, str]:
    if family == "layer" and candidate.claim.family is None:
        return candidate, "layer" if _is_centred(candidate) else "rms"
    return candidate, family


def _is_centred(candidate: Candidate) -> bool:
    """Whether the level of the input makes no difference."""
    probe, rank = probe_of(candidate, "layer"), candidate.rank
    plain, raised = (probe.forward(probe.layer(rank), probe.x(rank) + level) for level in (0.0, 3.0))
    return bool(np.abs(plain - raised).max() < 1e-2)


def _without_fit(candidates: list[Candidate]) -> Candidate:
    """The candidate to judge where the axes of none are the family's: one that some formula explains.

    Of several the first whose evaluation uses running statistics that are found.
    """
    explained = [*filter(_has_formula, candidates[:_MOST_EXPLAINED])][:_MOST_FITTING] or candidates[:1]
    first = next(filter(_uses_statistics, explained), explained[0])
    return best_given(first, candidates, None)


def _uses_statistics(candidate: Candidate) -> bool:
    """Whether evaluation differs from training, and what it uses is found."""
    mode, evaluates = find_mode(candidate.builder, candidate.rank)
    if not evaluates:
        return False
    builder = dataclasses.replace(candidate.builder, mode=mode)
    return {*RUNNING} <= {*find_roles(builder, candidate.rank, evaluates=True).by_path.values()}


def _has_formula(candidate: Candidate) -> bool:
    """Whether a formula reproduces its output, over whatever axes."""
    try:
        formula = measure_formula(probe_of(candidate, candidate.claim.family or "batch"))
    except (TargetError, UnfillableError):
        return False
    return formula is not None and formula.fits


def _fits(candidate: Candidate, family: str) -> bool:
    try:
        return probe_of(candidate, family).as_expected(candidate.rank)
    except (TargetError, UnfillableError):
        return False


def _swapped(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Yield the first candidates again with weight and bias the other way around.

    Only where a weight of one and a bias of zero blot out the input: the weight is added then, and the bias multiplies.
    """
    other = {"weight": "bias", "bias": "weight"}
    for candidate in candidates[:_MOST_SWITCHED]:
        try:
            probe = probe_of(candidate, candidate.claim.family or "batch")
            layer = probe.layer(candidate.rank)
            paths = {slot.path: other.get(role, role) for role, slot in layer.slots().items()}
            blots_out = float(np.ptp(probe.forward(layer, probe.x(candidate.rank)))) < _CONSTANT
        except (TargetError, UnfillableError):
            continue
        if blots_out and {*AFFINE} <= {*paths.values()}:
            yield dataclasses.replace(candidate, builder=dataclasses.replace(candidate.builder, roles=paths))


def _switched(candidates: list[Candidate]) -> Iterator[Candidate]:
    """Yield the first candidates again with a mode that an experiment found."""
    for candidate in candidates[:_MOST_SWITCHED]:
        mode, evaluates = find_mode(candidate.builder, candidate.rank)
        if evaluates:
            yield dataclasses.replace(candidate, builder=dataclasses.replace(candidate.builder, mode=mode))
