"""Inspect a target without running it: its kind, its name, its constructor, its call, its library."""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from normkit.checking.target.arrays import JAX, TORCH, Library, likely_libraries


def name_of(target: Any) -> str:
    """Return the name that a target goes by."""
    return str(getattr(target, "__name__", type(target).__name__))


def kind_of(target: Any) -> str:
    """Tell a "module class", "module", "class", "object" and "function" from one another."""
    if isinstance(target, torch.nn.Module):
        return "module"
    if inspect.isclass(target):
        return "module class" if issubclass(target, torch.nn.Module) else "class"
    if inspect.isroutine(target) or hasattr(target, "func"):
        return "function"
    return "object"


def definition_of(target: Any) -> Any:
    """Return the class or the function whose code a target runs."""
    return target if inspect.isclass(target) or kind_of(target) == "function" else type(target)


def constructor_of(target: type) -> Callable[..., Any]:
    """Return the first constructor in the ancestry of a class that names its arguments."""
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
    """Return what a call of the target runs, without self."""
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
    """Return the hand-written backward function beside a forward function: its name with another ending."""
    name = getattr(function, "__name__", "")
    around = getattr(function, "__globals__", {})
    for other in (name.replace("forward", "backward"), f"{name}_backward", f"{name}_grad", f"d_{name}"):
        candidate = around.get(other)
        if other != name and inspect.isfunction(candidate) and len(inspect.signature(candidate).parameters) == 2:
            return candidate
    return None


def words_in(function: Any) -> list[str]:
    """Return the strings in the code of a function and of the functions of its module that it calls."""
    code, around = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if code is None:
        return []
    called = [around[name].__code__ for name in code.co_names if inspect.isfunction(around.get(name))]
    return [word for part in (code, *called) for word in part.co_consts if isinstance(word, str)]


def libraries_of(target: Any) -> list[Library]:
    """Return the libraries whose arrays a target may work on, the likeliest first."""
    if "module" in kind_of(target):
        return [TORCH]
    definition = definition_of(target)
    libraries = likely_libraries(global_names(definition))
    if JAX not in libraries and "jax" in getattr(inspect.getmodule(definition), "__dict__", {}):
        libraries.insert(0, JAX)
    return libraries


def global_names(definition: Any) -> set[str]:
    """Return every global name that the code of a function, or of a class's methods, refers to."""
    functions = [definition]
    if not inspect.isroutine(definition):
        functions = [value for value in vars(definition).values() if inspect.isroutine(value)]
    names: set[str] = set()
    for function in functions:
        code = getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)
        if code is not None:
            names |= set(code.co_names)
    return names
