"""Decide as which family and on which inputs a target is measured, where its name and arguments leave that open."""

import dataclasses

from normkit.checking import conventions
from normkit.checking.errors import TargetError
from normkit.checking.lab import Lab
from normkit.checking.options import Options
from normkit.checking.resolve import Resolved
from normkit.checking.rig import Rig
from normkit.checking.subject import Subject

_BATCHES = (4, 2, 3)


def open_lab(ways: list[Resolved], options: Options) -> Lab:
    """Mount a target for measuring, by that of the ways to call it which makes sense."""
    family, reason = _family(ways)
    resolved, subject = _settled(ways, family)
    lab = Lab(resolved, subject, family, reason, options)
    if subject.momentum_required and conventions.momentum_of_old(lab):
        subject = dataclasses.replace(subject, momentum=0.9)  # the usual value of that meaning
        lab = Lab(resolved, subject, family, reason, options)
    return lab


def _family(ways: list[Resolved]) -> tuple[str, str]:
    """The family it claims, or the one whose axes it reduces."""
    claim = ways[0].claim
    if claim.family is not None:
        return claim.family, claim.reason
    for family in ("batch", "instance", "group", "layer"):
        resolved, subject = _settled(ways, family)
        rig = Rig(resolved, subject, family)
        if _as_expected(rig):
            centred = rig.formula is None or rig.formula.centred
            return (family if centred else "rms"), "by what it averages over"
    return "batch", "a guess: its axes are those of no family; say it with --as"


def _settled(ways: list[Resolved], family: str) -> tuple[Resolved, Subject]:
    """The way and the batch size at which the axes are those of the family; the first ones where they never are."""
    for batch in (ways[0].subject.geometry.batch, *_BATCHES):
        for resolved in ways:
            subject = resolved.subject.with_geometry(batch=batch)
            if _as_expected(Rig(resolved, subject, family)):
                return resolved, subject
    return ways[0], ways[0].subject


def _as_expected(rig: Rig) -> bool:
    try:
        return rig.as_expected()
    except TargetError:
        return False
