"""A target behind an adapter: a function of a few lines that somebody writes, which returns a callable of x alone."""

import inspect
from collections.abc import Callable
from typing import Any

from normkit.checking.target.callables import name_of
from normkit.checking.target.errors import CannotRunError


def adapted(make: Any, target: Any) -> Callable[[], Any]:
    """Return a function that builds the target through the adapter, under the target's name.

    Args:
        make: Takes the target, or nothing, and returns a callable of x alone: a fresh one in each call.
        target: What is checked.
    Raises:
        CannotRunError: ``make`` cannot be called so.
    """
    if not callable(make):
        raise CannotRunError(f"expected --adapter to name a function, but {name_of(make)} cannot be called")
    required = [p for p in inspect.signature(make).parameters.values() if p.default is p.empty]
    if len(required) > 1:
        raise CannotRunError(
            f"expected --adapter to name a function of the target, or of nothing, but {name_of(make)} takes "
            f"{', '.join(parameter.name for parameter in required)}"
        )
    takes_target = bool(inspect.signature(make).parameters)

    def build() -> Any:
        return make(target) if takes_target else make()

    build.__name__ = build.__qualname__ = name_of(target)
    build.__dict__["adapts"] = target
    return build
