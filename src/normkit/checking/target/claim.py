"""The family and the ranks that a target promises, before anything is measured."""

import inspect
from dataclasses import dataclass
from typing import Any

from normkit.checking.options import Options
from normkit.checking.target.arrays import TORCH
from normkit.checking.target.builder import Builder
from normkit.checking.target.callables import definition_of, kind_of, name_of
from normkit.checking.target.geometry import Geometry
from normkit.checking.target.names import ABBREVIATIONS, family_of, ranks_of, words_of
from normkit.checking.target.shared import SharedState
from normkit.checking.target.signature import UnfillableError

_BY_GROUPS = "by its argument for groups"


@dataclass(frozen=True)
class Claim:
    """A promise of a family and of ranks.

    Args:
        family: The family, or None where nothing tells.
        reason: Where it was read.
        ranks: The input ranks that its name promises; empty for none in particular.
        firm: Whether anything promises a family but an argument for groups, which convolutions have too.
    """

    family: str | None
    reason: str
    ranks: tuple[int, ...]
    firm: bool = True


def claim_of(target: Any, options: Options) -> Claim:
    """Read family and ranks from the options, the name, the ancestors' names or the arguments."""
    definition = definition_of(target)
    lineage = [name_of(definition)]
    if inspect.isclass(definition):
        lineage += [base.__name__ for base in definition.__mro__[1:]]
    by_name = next((name for name in lineage if family_of(name)), None)
    family, reason = options.family, "as you said"
    if family is None and by_name is not None:
        family = family_of(by_name)
        reason = "by its name" if by_name == lineage[0] else f"as a subclass of {by_name}"
    if family is None:
        family, reason = _by_arguments(target, options)
    ranks = next((found for name in lineage if (found := ranks_of(name, family))), ())
    return Claim(family, reason, options.ranks or ranks, firm=family is not None and reason != _BY_GROUPS)


def _by_arguments(target: Any, options: Options) -> tuple[str | None, str]:
    try:
        builder = Builder(target, kind_of(target), TORCH, Geometry(), options, SharedState(None))
        names = [name for signature in builder.signatures() for name in signature.parameters]
        words = {word for name in names for word in words_of(name)}
        if (told := next((family for word, family in ABBREVIATIONS.items() if word in words), None)) is not None:
            return told, "by the names of its arguments"
        if builder.accepts("groups"):
            return "group", _BY_GROUPS
        if builder.accepts("running_mean") or builder.accepts("momentum"):
            return "batch", "by its arguments for running statistics"
    except (UnfillableError, TypeError, AttributeError):
        return None, ""
    if "normalized_shape" in names:
        return "layer", "by its argument normalized_shape"
    return None, ""
