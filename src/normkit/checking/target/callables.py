"""Inspect a target without running it: its kind, its name, its constructor, its call, its library."""

import enum
import inspect
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch

from normkit.checking.target.arrays import JAX, NUMPY, TORCH, Library, likely_libraries
from normkit.checking.target.frameworks import library_name_of

_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_FORWARD = ("forward", "norm", "standard", "fprop", "call", "apply", "predict", "transform", "run", "compute")
_NO_FORWARD = (
    "backward",
    "grad",
    "back",
    "bprop",
    "train",
    "eval",
    "update",
    "reset",
    "param",
    "state",
    "set_",
    "get_",
)


_IMPORTED = {"torch", "nn", "F", "np", "numpy", "jnp", "jax"}


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
    """Return the constructor of a class, with what its ``*args`` and ``**kwargs`` pass on to its ancestors."""
    named: list[inspect.Parameter] = []
    takes_positional = takes_keywords = False
    for kind in target.__mro__:
        function = kind.__dict__.get("__init__")
        if function is None or kind is object:
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        known = {parameter.name for parameter in named}
        inherited, sizes_itself = bool(named), any(p.default is p.empty for p in named)
        for parameter in parameters:
            if parameter.kind in _VARIADIC or parameter.name in known:
                continue
            if sizes_itself and parameter.default is parameter.empty:
                continue  # what an ancestor requires its descendant passes
            if inherited and not takes_positional:
                parameter = parameter.replace(kind=parameter.KEYWORD_ONLY)  # noqa: PLW2901 the same one, otherwise passed
            named.append(parameter)
        takes_positional = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        takes_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters)
        if not takes_positional and not takes_keywords:
            break
    return _with_signature(_no_arguments, named)


def _no_arguments() -> None: ...


def _with_signature(function: Callable[..., Any], parameters: list[inspect.Parameter]) -> Callable[..., Any]:
    """Return a stand-in for a callable that tells these parameters, in an order that a signature may have."""

    def told(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    empty = inspect.Parameter.empty
    ordered = sorted(parameters, key=lambda p: (p.kind, p.kind is not p.KEYWORD_ONLY and p.default is not empty))
    told.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    return told


def _without_self(owner: type, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """Take away the first argument of a method; a static method has none to take away."""
    if isinstance(inspect.getattr_static(owner, name), staticmethod):
        return function
    return function.__get__(object())  # type: ignore[no-any-return]


def forward_of(target: Any, kind: str, method: str | None = None) -> Callable[..., Any]:
    """Return what a call of the target runs, without self.

    Args:
        target: The class, instance or function.
        kind: What ``kind_of`` says.
        method: The name of the method that is called; None takes forward or __call__.
    """
    if kind == "function":
        return target  # type: ignore[no-any-return]
    owner = target if inspect.isclass(target) else type(target)
    names = (method,) if method else ("forward",) if "module" in kind else ("__call__", "forward")
    for name in names:
        function = getattr(owner, name, None)
        if name == "__call__" and inspect.isclass(target) and "__call__" not in dir(owner):
            continue
        if function is None or not inspect.isroutine(function) or _is_slot(function):
            continue
        bare = _without_self(owner, name, function)
        if name == "__call__" and "forward" in dir(owner) and _passes_on(bare):
            continue
        return bare
    raise TypeError(f"{name_of(target)} has neither forward nor __call__")


def methods_of(target: Any) -> list[str]:
    """Return the public methods that may be the forward pass of a class, the likeliest first."""
    owner = target if inspect.isclass(target) else type(target)
    names = [name for name in dir(owner) if not name.startswith("_")]
    names = [name for name in names if inspect.isfunction(inspect.unwrap(getattr(owner, name)))]
    names = [n for n in names if "forward" in n.lower() or not any(word in n.lower() for word in _NO_FORWARD)]
    names = [name for name in names if not _takes_none(getattr(owner, name))]
    return sorted(names, key=_how_unlikely)


def _how_unlikely(name: str) -> int:
    return next((index for index, word in enumerate(_FORWARD) if word in name.lower()), len(_FORWARD))


def _takes_none(method: Any) -> bool:
    """Whether a method takes nothing, or what is no array by its annotation."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    return not parameters or parameters[0].annotation in (str, int, bool, float, dict, "str", "int", "bool", "float")


def _passes_on(function: Callable[..., Any]) -> bool:
    """Whether a callable takes anything, so that what it calls tells its arguments."""
    return all(p.kind in _VARIADIC for p in inspect.signature(function).parameters.values())


def _is_slot(function: Any) -> bool:
    return type(function).__name__ in ("method-wrapper", "wrapper_descriptor")


def backward_of(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return the hand-written backward function beside a forward function: its name with another ending."""
    name = getattr(function, "__name__", "")
    around = getattr(function, "__globals__", {})
    for other in (name.replace("forward", "backward"), f"{name}_backward", f"{name}_grad", f"d_{name}"):
        candidate = around.get(other)
        if other != name and inspect.isfunction(candidate):
            return candidate
    return None


def words_in(definition: Any) -> list[str]:
    """Return the strings in the code of a function, of what it calls in its module, or of a class's methods."""
    words: list[str] = []
    for code in _codes_of(definition):
        words += [word for constant in code.co_consts for word in _strings_in(constant)]
    return list(dict.fromkeys(words))


def enums_in(definition: Any) -> list[type[enum.Enum]]:
    """Return the enumerations that the code of a function or class refers to."""
    function = next(iter(_functions_of(definition)), None)
    around = getattr(function, "__globals__", {})
    named = {name: around.get(name) for code in _codes_of(definition) for name in code.co_names}
    return [kind for kind in named.values() if inspect.isclass(kind) and issubclass(kind, enum.Enum)]


def _strings_in(constant: Any) -> list[str]:
    if isinstance(constant, str):
        return [constant] if len(constant) < 30 else []
    if isinstance(constant, tuple | frozenset):
        return [word for item in constant for word in _strings_in(item)]
    return []


def _functions_of(definition: Any) -> list[Any]:
    """The functions of a class and its ancestors, as far as somebody wrote them, or the function itself."""
    if not inspect.isclass(definition):
        return [definition]
    kinds = [kind for kind in definition.__mro__ if kind.__module__.partition(".")[0] not in ("torch", "builtins")]
    found = [getattr(value, "__func__", value) for kind in kinds for value in vars(kind).values()]
    return [inspect.unwrap(function) for function in found if inspect.isfunction(function)]


def _codes_of(definition: Any) -> list[CodeType]:
    codes: list[CodeType] = []
    for function in _functions_of(definition):
        code, around = getattr(function, "__code__", None), getattr(function, "__globals__", {})
        if code is None:
            continue
        called = [around[name].__code__ for name in code.co_names if inspect.isfunction(around.get(name))]
        inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
        codes += [code, *called, *inner]
    return codes


def libraries_of(target: Any) -> list[Library]:
    """Return the libraries whose arrays a target may work on, the likeliest first."""
    target = getattr(target, "adapts", target)
    if (named := library_name_of(target)) is not None:
        return [library for library in (TORCH, JAX, NUMPY) if library.name == named]
    if "module" in kind_of(target):
        return [TORCH]
    definition = definition_of(target)
    names = global_names(definition)
    if not names & _IMPORTED:  # methods of arrays alone: what the module imports tells
        names |= _IMPORTED & set(getattr(inspect.getmodule(definition), "__dict__", {}))
    libraries = likely_libraries(names)
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
