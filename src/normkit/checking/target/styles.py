"""The usual ways to call a target: as a function or a factory, which method, which shapes of parameters."""

import inspect
from collections.abc import Iterator
from typing import Any

from normkit.checking.target.builder import Builder
from normkit.checking.target.callables import definition_of, forward_of, kind_of, methods_of, name_of
from normkit.checking.target.cells import slots_in
from normkit.checking.target.errors import CannotRunError, TargetError
from normkit.checking.target.made import Made
from normkit.checking.target.names import role_of
from normkit.checking.target.signature import Signature, UnfillableError
from normkit.checking.target.state import ROLES

_MOST_METHODS = 4


def kinds(target: Any) -> list[str]:
    """Return what a target may be, the likeliest first: a function may return a layer."""
    kind = kind_of(target)
    if kind != "function":
        return [kind]
    try:
        names = list(inspect.signature(target).parameters)
    except (TypeError, ValueError):
        return [kind]
    takes_input = any(role_of(name) == "input" for name in names)
    makes = not names or (not takes_input and role_of(names[0]) in ("features", "groups", "eps", "momentum", "rank"))
    return ["factory", "function"] if makes else ["function", "factory"]


def methods(target: Any, chosen: str | None) -> list[str | None]:
    """Return the methods that may be the forward pass; None stands for ``forward`` or ``__call__``."""
    kind = kind_of(target)
    if chosen is not None:
        if kind != "function" and not callable(getattr(definition_of(target), chosen, None)):
            known = ", ".join(methods_of(definition_of(target))) or "none that takes an input"
            raise CannotRunError(f"{name_of(target)} has no method {chosen!r}; it has: {known}")
        return [chosen]
    if kind == "function":
        return [None]
    try:
        forward_of(target, kind)
    except TypeError:
        return list(methods_of(definition_of(target))[:_MOST_METHODS])
    return [None]


def shapes(builder: Builder) -> Iterator[Builder]:
    """Vary the shapes of what is passed, the usual way first; parameters of shape (C, 1) come before all."""
    kept, features = _kept_shapes(builder), builder.geometry.features
    column = (*features, 1) in kept
    if column:
        yield builder.with_style(transposed=True, parameters="column")
    yield builder
    call, constructor = builder.call_of_first(), builder.constructor()
    if any(signature is not None and signature.name_of("features") for signature in (call, constructor)):
        yield builder.with_style(features_as_tuple=True)
    if features in kept and not column and not _takes_arrays(builder, call):
        yield builder.with_style(transposed=True)
    if _takes_arrays(builder, call):
        yield builder.with_style(parameters="keepdims")
        yield builder.with_style(parameters="trailing")
        if not column:
            yield builder.with_style(transposed=True, parameters="column")
            yield builder.with_style(transposed=True)
        yield builder.with_style(gives="required")
        yield builder.with_style(gives="required", parameters="keepdims")
        yield builder.with_style(parameters="number")


def _takes_arrays(builder: Builder, call: Signature | None) -> bool:
    """Whether arguments of the call are arrays that its caller keeps."""
    standing = {
        name for name, value in builder.style.stand_ins if isinstance(value, Made) and "C" in (value.axes or ())
    }
    return call is not None and any(role in ROLES or name in standing for name, role in call.roles.items())


def _kept_shapes(builder: Builder) -> set[tuple[int, ...]]:
    """The shapes of the arrays that an object keeps."""
    if builder.is_function or len(builder.geometry.features) != 1:
        return set()
    try:
        layer = builder.build(2)
    except (TargetError, UnfillableError):
        return set()
    return {tuple(value.shape) for slot in slots_in(layer.instance) if builder.library.owns(value := slot.read())}
