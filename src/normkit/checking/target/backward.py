"""Gradients as hand-written code hands them over: returned in any order, or kept under some name."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.cells import Slot
from normkit.checking.target.errors import RAISED, describe
from normkit.checking.target.names import Role, last_part, role_of, speaks_of_gradient
from normkit.checking.target.state import AFFINE

_MOST_STUBS = 4


class CannotCallError(Exception):
    """A hand-written backward pass raised: whether that is a fault, or it was called wrongly, cannot be told."""


@dataclass
class Gradients:
    """The gradients of the target's backward pass.

    Args:
        dx: By the input; None where it gave none.
        affine: By weight and bias, as far as position or name tell.
        candidates: Further arrays that may be one of them.
        unnamed: Those of the candidates that lie where gradients do, with a name that does not tell of what.
        failure: What a hand-written backward pass raised.
    """

    dx: Values | None
    affine: dict[Role, Values] = field(default_factory=dict)
    candidates: list[Values] = field(default_factory=list)
    unnamed: list[Values] = field(default_factory=list)
    failure: Exception | None = None


def gradient_role(path: str) -> Role | None:
    """Tell weight and bias by the places of their gradients: dgamma, grad_weight, beta_grad, grads['gamma']."""
    name = last_part(path)
    plain = name.strip("_").lower()
    if path != name and speaks_of_gradient(path.removesuffix(f"['{name}']")) and role_of(name) in AFFINE:
        return role_of(name)
    for affix in ("grad_", "d_", "d"):
        if plain.startswith(affix) and role_of(plain.removeprefix(affix)) in AFFINE:
            return role_of(plain.removeprefix(affix))
    for affix in ("_grad", "_gradient"):
        if plain.endswith(affix) and role_of(plain.removesuffix(affix)) in AFFINE:
            return role_of(plain.removesuffix(affix))
    return None


def call_backward(
    method: Callable[..., Any], dy: Array, x: Array, extras: Sequence[Any], given: Mapping[Role, Any]
) -> Any:
    """Call a hand-written backward pass: (dy), (dy, cache) or (x, dy), with a learning rate of zero if it takes one."""
    parameters = [p for p in inspect.signature(method).parameters.values() if p.kind is not p.VAR_KEYWORD]
    required = [p.name for p in parameters if p.default is p.empty and not _is_rate(p.name)]
    keywords: dict[str, Any] = {p.name: 0.0 for p in parameters if _is_rate(p.name)}
    takes_input = len(required) > 1 and not extras and role_of(required[0]) == "input"
    caches = [extra for extra in extras if isinstance(extra, tuple | list | Mapping)]
    cache = caches if len(caches) == 1 else list(extras[-1:])
    values = [x, dy] if takes_input else [dy, *cache]
    if len(required) > len(values):
        values = _by_name(required, dy, x, extras, given)
    owner = getattr(method, "__self__", None)
    for _ in range(_MOST_STUBS):
        try:
            return method(*values[: len(required)], **keywords)
        except AttributeError as error:
            if not _stub_missing(owner, error):
                raise CannotCallError(describe(error)) from error
        except RAISED as error:
            raise CannotCallError(describe(error)) from error
    raise CannotCallError("it needs further objects")


def _by_name(required: list[str], dy: Array, x: Array, extras: Sequence[Any], given: Mapping[Role, Any]) -> list[Any]:
    """Values for a backward pass that takes what it needs one by one: told by their names, the rest in order."""
    parts = [part for extra in extras for part in (extra if isinstance(extra, tuple | list) else [extra])]
    values: list[Any] = []
    for index, name in enumerate(required):
        role = role_of(name)
        if index == 0 and role != "input":
            values.append(dy)
        elif role == "input":
            values.append(x)
        elif role is not None and role in given:
            values.append(given[role])
        elif parts:
            values.append(parts.pop(0))
    return values


class _Stub:
    """Stands for an optimizer that its framework would set: whatever is called leaves the parameter as it is."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **_: args[0] if len(args) > 1 else 0 * args[0] if args else None


def _stub_missing(owner: Any, error: AttributeError) -> bool:
    """Put a stub where a backward pass looked for an object that was never set; False where it did not."""
    if owner is None:
        return False
    if error.obj is owner and error.name is not None and "opt" in error.name.lower():
        setattr(owner, error.name, _Stub())
        return True
    unset = [name for name, held in vars(owner).items() if held is None and "opt" in name.lower()]
    for name in unset:
        setattr(owner, name, _Stub())
    return bool(unset) and error.obj is None


def input_gradient_role(name: str) -> bool:
    """Whether a name is usual for the gradient by the input: dx, dinputs, grad_input."""
    plain = name.strip("_").lower()
    return plain in (
        "dx",
        "dinputs",
        "dinput",
        "grad_input",
        "input_grad",
        "grad_x",
        "x_grad",
        "dldz",
        "dldx",
        "d_x",
        "dz",
    )


def _is_rate(name: str) -> bool:
    return name.strip("_").lower() in ("lr", "learning_rate", "alpha", "eta", "step_size", "rate")


def read_gradients(library: Library, result: Any, x: Array) -> Gradients:
    """Take dx, dweight and dbias out of what a hand-written backward function returned, in the usual order."""
    named = result if isinstance(result, Mapping) else {}
    items = list(named.values()) if named else list(result) if isinstance(result, tuple | list) else [result]
    arrays = [item for item in items if library.owns(item)]
    dx = next((item for item in arrays if tuple(item.shape) == tuple(x.shape)), None)
    rest = [library.values(item) for item in arrays if item is not dx]
    inner = [value for item in items if isinstance(item, Mapping) for value in item.values() if library.owns(value)]
    rest += [library.values(value) for value in inner]
    return Gradients(None if dx is None else library.values(dx), dict(zip(AFFINE, rest, strict=False)), rest)


def kept_gradients(
    library: Library,
    found: Gradients,
    after: Iterable[Slot],
    before: Mapping[str, int],
    slots: Mapping[Role, Slot],
    shape: tuple[int, ...],
    *,
    by_name: bool,
) -> None:
    """Add the gradients that a backward method left in the object: those with a telling name, and all new arrays."""
    taken = {slot.path for slot in slots.values()}
    for slot in after:
        held = slot.read()
        if not library.owns(held) or slot.path in taken:
            continue
        role = gradient_role(slot.path)
        if found.dx is None and by_name and input_gradient_role(str(slot.key)) and tuple(held.shape) == shape:
            found.dx = library.values(held)
        if role and role not in found.affine:
            found.affine[role] = library.values(held)
        elif before.get(slot.path) != id(held):
            found.candidates.append(library.values(held))
            if role is None and speaks_of_gradient(slot.path):
                found.unnamed.append(library.values(held))
