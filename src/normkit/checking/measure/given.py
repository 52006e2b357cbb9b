"""Choose the shapes of the arrays that the caller of a target keeps: those with which it does what it should."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from normkit.checking.measure.modes import find_mode
from normkit.checking.measure.probe import probe_of
from normkit.checking.target.builder import attempt
from normkit.checking.target.errors import TargetError
from normkit.checking.target.names import role_of
from normkit.checking.target.resolve import Candidate
from normkit.checking.target.signature import UnfillableError
from normkit.checking.target.state import AFFINE


def best_given(candidate: Candidate, others: list[Candidate], family: str | None) -> Candidate:
    """Return the candidate with the shapes that serve best, its own where others serve no better.

    Better is one with which evaluation differs from training, with which weight and bias scale and shift each channel,
    and with which more of its arguments are given.

    Args:
        candidate: A way to call it whose axes are the family's.
        others: All ways that run.
        family: The family; None where its axes are those of none.
    """
    variants = list(_variants(candidate, others, family))
    if len(variants) < 2:
        return candidate
    scores = [_score(variant) for variant in variants]
    return variants[max(range(len(variants)), key=lambda index: scores[index])]


def _variants(candidate: Candidate, others: list[Candidate], family: str | None) -> Iterator[Candidate]:
    """Yield the candidate with each of the shapes that run at its rank, in its layout, and with numbers given too."""
    builder, rank = candidate.builder, candidate.rank
    yield candidate
    styles = [candidate.builder.style]
    for other in others:
        alike = other.rank == rank and other.builder.geometry.last == builder.geometry.last
        if alike and dataclasses.replace(other.builder.style, parameters="flat", gives="all") == dataclasses.replace(
            builder.style, parameters="flat", gives="all"
        ):
            styles.append(other.builder.style)
    seen = [builder.style]
    known = builder.build(rank).given.keys()
    for style in styles:
        for numbers, parameters in [(False, style.parameters), (True, style.parameters), (True, "number")]:
            changed = dataclasses.replace(style, numbers=numbers, parameters=parameters)
            if changed in seen:
                continue
            seen.append(changed)
            one = dataclasses.replace(candidate, builder=dataclasses.replace(builder, style=changed))
            if (numbers and one.builder.build(rank).given.keys() == known) or not _runs(one, family):
                continue
            yield one


def _runs(candidate: Candidate, family: str | None) -> bool:
    builder, rank = candidate.builder, candidate.rank
    try:
        if attempt(builder, rank) != builder.geometry.shape(rank):
            return False
        return family is None or probe_of(candidate, family).as_expected(rank)
    except (TargetError, UnfillableError):
        return False


def _score(candidate: Candidate) -> tuple[bool, int, bool, int]:
    _, evaluates = find_mode(candidate.builder, candidate.rank)
    layer = candidate.builder.build(candidate.rank)
    affine = [slot.key for role, slot in layer.slots().items() if role in AFFINE and slot.owner is layer.given]
    applied = 1
    if affine:
        named = all(role_of(name) in AFFINE for name in affine)  # what is called a weight is one, even if it is ignored
        applied = 3 if scales(candidate) else 2 if named else 0
    return evaluates, applied, candidate.builder.style.parameters != "number", len(layer.given)


def scales(candidate: Candidate) -> bool:
    """Whether the output with another weight and bias is the plain one times weight plus bias."""
    rank, builder = candidate.rank, candidate.builder
    probe = probe_of(candidate, "batch")
    try:
        layer, other = builder.build(rank), builder.build(rank)
        values = {role: np.linspace(0.6, 1.7, held.size) for role, held in other.read(*AFFINE).items()}
        other.write(**values)
        plain, actual = (probe.forward(one, probe.x(rank)) for one in (layer, other))
    except (TargetError, UnfillableError):
        return False
    wanted = probe.scaled(plain, values.get("weight"), values.get("bias"))
    return wanted is not None and actual.shape == wanted.shape and bool(np.abs(actual - wanted).max() < 1e-3)
