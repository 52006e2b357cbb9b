"""What Python tells about a target without running it: its kind, its name, its constructor, its call."""

import inspect
from collections.abc import Callable
from typing import Any


def words_in(function: Any) -> list[str]:
    """The strings in the code of a function and of the functions of its module that it calls."""
    code, around = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if code is None:
        return []
    called = [around[name].__code__ for name in code.co_names if inspect.isfunction(around.get(name))]
    return [word for part in (code, *called) for word in part.co_consts if isinstance(word, str)]


def name_of(target: Any) -> str:
    """The name that a target goes by."""
    return str(getattr(target, "__name__", type(target).__name__))


def kind_of(target: Any) -> str:
    """module class, module, class, object or function."""
    import torch

    if isinstance(target, torch.nn.Module):
        return "module"
    if inspect.isclass(target):
        return "module class" if issubclass(target, torch.nn.Module) else "class"
    if inspect.isroutine(target) or hasattr(target, "func"):
        return "function"
    return "object"


def constructor_of(target: type) -> Callable[..., Any]:
    """The class itself, or the first constructor in its ancestry that names its arguments."""
    for kind in target.__mro__:
        function = kind.__dict__.get("__init__")
        if function is None or kind is object:
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if any(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) for p in parameters):
            return _without_self(function)
    return _no_arguments


def _no_arguments() -> None: ...


def _without_self(function: Callable[..., Any]) -> Callable[..., Any]:
    return function.__get__(object())  # type: ignore[no-any-return]


def forward_of(target: Any, kind: str) -> Callable[..., Any]:
    """What a call of the target runs, without self."""
    if kind == "function":
        return target  # type: ignore[no-any-return]
    owner = target if inspect.isclass(target) else type(target)
    for name in ("forward",) if "module" in kind else ("__call__", "forward"):
        function = getattr(owner, name, None)
        if name == "__call__" and inspect.isclass(target) and "__call__" not in dir(owner):
            continue
        if function is not None and inspect.isroutine(function) and not _is_slot(function):
            return _without_self(function)
    raise TypeError(f"{name_of(target)} has neither forward nor __call__")


def _is_slot(function: Any) -> bool:
    return type(function).__name__ in ("method-wrapper", "wrapper_descriptor")


def backward_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """The hand-written backward function that stands beside a forward function: its name with another ending."""
    name = getattr(function, "__name__", "")
    around = getattr(function, "__globals__", {})
    for other in (name.replace("forward", "backward"), f"{name}_backward", f"{name}_grad", f"d_{name}"):
        candidate = around.get(other)
        if other != name and inspect.isfunction(candidate) and len(inspect.signature(candidate).parameters) == 2:
            return candidate
    return None
