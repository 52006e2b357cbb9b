"""Decide as which family and on which inputs a target is measured, where its name and arguments leave that open."""

import dataclasses
from collections.abc import Iterator

from normkit.checking import conventions
from normkit.checking.errors import TargetError
from normkit.checking.lab import Lab
from normkit.checking.options import Options
from normkit.checking.resolve import Resolved
from normkit.checking.rig import Rig
from normkit.checking.subject import Subject

_BATCHES = (4, 2, 3)


def open_lab(resolved: Resolved, options: Options) -> Lab:
    """Mount a target for measuring."""
    family, reason = _family(resolved)
    subject = _settled(resolved, family)
    lab = Lab(resolved, subject, family, reason, options)
    if subject.momentum_required and conventions.momentum_of_old(lab):
        subject = dataclasses.replace(subject, momentum=0.9)  # the usual value of that meaning
        lab = Lab(resolved, subject, family, reason, options)
    return lab


def _family(resolved: Resolved) -> tuple[str, str]:
    """The family it claims, or the one whose axes it reduces."""
    claim = resolved.claim
    if claim.family is not None:
        return claim.family, claim.reason
    for family in ("batch", "instance", "group", "layer"):
        rig = Rig(resolved, _settled(resolved, family), family)
        if _as_expected(rig):
            centred = rig.formula is None or rig.formula.centred
            return (family if centred else "rms"), "by what it averages over"
    return "batch", "a guess: its axes are those of no family; say it with --as"


def _settled(resolved: Resolved, family: str) -> Subject:
    """The layout and batch size at which the axes are those of the family; the first ones where they never are."""
    for subject in _choices(resolved.subject, family):
        if _as_expected(Rig(resolved, subject, family)):
            return subject
    return resolved.subject


def _choices(subject: Subject, family: str) -> Iterator[Subject]:
    yield subject
    if len(subject.geometry.features) == 1 and family != "rms":
        yield subject.with_geometry(last=not subject.geometry.last)
    yield from (subject.with_geometry(batch=batch) for batch in _BATCHES)


def _as_expected(rig: Rig) -> bool:
    try:
        return rig.as_expected()
    except TargetError:
        return False
