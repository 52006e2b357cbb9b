"""Which arrays of a state belong to norms, told by their names and shapes."""

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Final, NamedTuple

from normkit.conventions import CONVENTIONS, KINDS
from normkit.errors import UserError
from normkit.model.arrays import separator
from normkit.model.summary import Skipped

__all__ = ["Arrays", "FoundNorm", "find_norms"]

_COUNTER: Final = "num_batches_tracked"
"""torch's count of batches, which no other library has."""

Arrays = dict[str, Any]
"""The arrays of a layer by their role."""


class FoundNorm(NamedTuple):
    """A norm among the arrays of the source."""

    name: str
    kind: str
    arrays: Arrays


def find_norms(
    flat: Mapping[tuple[str, ...], Any], source: str, kinds: Mapping[str, str]
) -> tuple[list[FoundNorm], list[Skipped]]:
    """Divide arrays into norms and the rest."""
    for kind in kinds.values():
        if kind not in KINDS:
            raise UserError(f"`kinds` must be among {', '.join(KINDS)}; got {kind!r}")
    layers: dict[str, Arrays] = {}
    for (*path, array), value in flat.items():
        layers.setdefault(separator(source).join(path), {})[array] = value
    found: list[FoundNorm] = []
    left: list[Skipped] = []
    for name, arrays in layers.items():
        told = next((kinds[pattern] for pattern in kinds if fnmatchcase(name, pattern)), None)
        try:
            found.append(_norm(name, arrays, source, told))
        except _NoNormError as error:
            left += [Skipped(separator(source).join(filter(None, (name, array))), "", str(error)) for array in arrays]
    return found, left


class _NoNormError(Exception):
    """Why arrays are not converted."""


def _norm(name: str, arrays: Arrays, source: str, told: str | None) -> FoundNorm:
    """Return the norm that arrays belong to."""
    roles = _roles(arrays, source)
    kind = _kind(roles, arrays, source, told)
    return FoundNorm(name, kind, {role: value for role, value in roles.items() if role != _COUNTER})


def _roles(arrays: Arrays, source: str) -> Arrays:
    """Return the arrays of a layer by their role."""
    convention = CONVENTIONS[source]
    roles = {name: role for role, name in convention.arrays.items()}
    if convention.rms_weight:
        roles[convention.rms_weight] = "weight"
    if source == "torch":
        roles[_COUNTER] = _COUNTER
    if not set(arrays) <= set(roles):
        raise _NoNormError("it is no norm's")
    by_role = {roles[name]: value for name, value in arrays.items()}
    shapes = {tuple(value.shape) for role, value in by_role.items() if role != _COUNTER}
    if any(len(shape) > 1 for shape in shapes):
        if len(by_role) == 1 or len(shapes) > 1:
            raise _NoNormError("it is no norm's")
        raise _NoNormError(
            "it has several axes: permute it by hand, since which of them is the channel axis cannot be known"
        )
    if len(shapes) != 1:
        raise _NoNormError("its arrays differ in shape")
    return by_role


def _kind(roles: Arrays, arrays: Arrays, source: str, told: str | None) -> str:
    """Return the kind of a norm."""
    running = {"running_mean", "running_var"} & set(roles)
    if len(running) == 1:
        raise _NoNormError("of running mean and variance there is one alone")
    if running:
        return "batch"
    if told is not None:
        return told
    convention = CONVENTIONS[source]
    if "weight" not in roles:
        raise _NoNormError("a bias alone may be any layer's")
    if convention.rms_weight in arrays:
        return "rms"
    if "bias" in roles or convention.rms_weight:
        return "layer"
    if convention.arrays["weight"] == "weight":  # as that of a PReLU
        raise _NoNormError("a weight alone may be an RMS norm's or a PReLU's: say so in `kinds`")
    return "rms"
