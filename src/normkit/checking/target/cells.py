"""Every place in an object that can hold an array: attributes, entries of dicts and lists, cells of closures.

Most places belong to the object. Those that other objects see too are shared: attributes of its class, globals of its
module, the cells of a closure that was given ready-made.
"""

import dis
import inspect
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, dataclass
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.nn.parameter import is_lazy

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Library

_DEPTH = 4
_MOST = 500
_MOST_PARTS = 4
_OF_TORCH = set(vars(torch.nn.Module()))
_LIBRARIES = {"torch", "numpy", "jax", "jaxlib", "builtins", "abc", "enum", "typing", "functools", "collections"}


@dataclass(frozen=True)
class Slot:
    """An attribute of an object, an entry of a dict or a list, or the cell of a closure.

    Args:
        owner: What it is a part of.
        key: Its name or index there.
        path: Where it lies, for people.
        part: For an entry of a tuple, or a row of an array of a few rows, that lies there: its index.
    """

    owner: Any
    key: Any
    path: str
    part: int | None = None

    def read(self) -> Any:
        """Return what it holds now."""
        held = self.whole()
        return held if self.part is None else held[self.part]

    def whole(self) -> Any:
        """Return what lies there now, the other entries of a tuple and rows of an array included."""
        if isinstance(self.owner, CellType):
            return self.owner.cell_contents
        return self.owner[self.key] if isinstance(self.owner, dict | list) else getattr(self.owner, self.key)

    def write(self, library: Library, values: Values) -> None:
        """Make it hold ``values``: in place where the library does so, or as a new array, list or number."""
        held = self.read()
        if library.owns(held):
            fresh = library.make(np.reshape(values, tuple(held.shape)), library.dtype(held))
            if not library.overwrite(held, fresh):
                self.put(fresh)
        elif isinstance(held, list):
            self.put(values.reshape(-1).tolist())
        else:
            self.put(float(values.reshape(-1)[0]) if values.size == 1 else library.make(values))

    def put(self, value: Any) -> None:
        """Make it hold another object; in a frozen dataclass too, since it is a copy for experiments."""
        if self.part is not None:
            held = self.whole()
            if isinstance(held, tuple):
                value = tuple(value if index == self.part else item for index, item in enumerate(held))
            else:
                whole = held.copy()
                whole[self.part] = value
                value = whole
        if isinstance(self.owner, CellType):
            self.owner.cell_contents = value
        elif isinstance(self.owner, dict | list):
            self.owner[self.key] = value
        else:
            try:
                setattr(self.owner, self.key, value)
            except FrozenInstanceError:
                object.__setattr__(self.owner, self.key, value)


def slots_in(holder: Any) -> Iterator[Slot]:
    """Yield every slot of an object and of its parts, the nearest first."""
    seen: set[int] = set()
    level: list[tuple[Any, str]] = [(holder, "")]
    count = 0
    for _ in range(_DEPTH):
        following: list[tuple[Any, str]] = []
        for owner, path in level:
            if id(owner) in seen:
                continue
            seen.add(id(owner))
            for slot, value in _entries(owner, path):
                yield slot
                if not isinstance(owner, torch.nn.Embedding | torch.nn.Linear):
                    yield from _parts_of(slot, value)
                count += 1
                if count > _MOST:
                    return
                if _has_parts(value):
                    following.append((value, slot.path))
        level = following


def _parts_of(slot: Slot, value: Any) -> Iterator[Slot]:
    """The entries of a tuple, and the rows of an array of a few rows: mean and variance kept together."""
    shape = getattr(value, "shape", ())
    rows = tuple(shape) if isinstance(shape, tuple) else ()
    few = len(value) if isinstance(value, tuple) else int(rows[0]) if len(rows) > 1 else 0
    if 1 < few <= _MOST_PARTS:
        for index in range(few):
            yield Slot(slot.owner, slot.key, f"{slot.path}[{index}]", index)


def shared_slots(definition: Any) -> list[Slot]:
    """Return the slots that outlive an object: of its class, of its module and of a ready-made closure."""
    found: list[Slot] = []
    functions = [definition]
    if inspect.isclass(definition):
        for kind in _own_kinds(definition):
            held = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
            found += [Slot(kind, name, name) for name, value in held.items() if _is_state(value)]
            functions += [value for value in vars(kind).values() if inspect.isroutine(value)]
    for function in functions:
        code = _code_of(function)
        if code is not None:
            found += _of_function(inspect.unwrap(getattr(function, "__func__", function)))
    return list({(id(slot.owner), slot.key): slot for slot in found}.values())


def _of_function(function: Any) -> Iterator[Slot]:
    yield from (slot for slot, value in _closure(function, "") if _is_state(value))
    around, code = getattr(function, "__globals__", {}), function.__code__
    stored = {step.argval for step in dis.get_instructions(code) if step.opname == "STORE_GLOBAL"}
    for name in code.co_names:
        value = around.get(name)
        local_object = type(value).__module__ == around.get("__name__") and hasattr(value, "__dict__")
        is_state = value is not None and _is_state(value) and not isinstance(value, int | float)
        if name in around and (name in stored or is_state or local_object):
            yield Slot(around, name, name)
    yield from (Slot(function, name, name) for name, value in vars(function).items() if _is_state(value))
    if any(_has_parts(value) for value in function.__defaults__ or ()):
        yield Slot(function, "__defaults__", "defaults")


def _is_state(value: Any) -> bool:
    if isinstance(value, bool | str):
        return False
    return value is None or isinstance(value, int | float | list | dict | np.ndarray | torch.Tensor) or _is_jax(value)


def _is_jax(value: Any) -> bool:
    return type(value).__module__.partition(".")[0] == "jaxlib"


def _entries(owner: Any, path: str) -> Iterator[tuple[Slot, Any]]:
    if isinstance(owner, dict | list):
        pairs = list(owner.items() if isinstance(owner, dict) else enumerate(owner))
        for key, value in pairs:
            yield Slot(owner, key, f"{path}[{key!r}]"), value
        return
    prefix = f"{path}." if path else ""
    if isinstance(owner, FunctionType | MethodType):
        yield from _closure(owner, prefix)
        if isinstance(owner, MethodType):
            yield Slot(owner, "__self__", f"{prefix}self"), owner.__self__
        return
    held = dict(getattr(owner, "__dict__", {}))
    for group in ("_parameters", "_buffers", "_modules"):
        held = {**(held.pop(group, None) or {}), **held} if isinstance(owner, torch.nn.Module) else held
    if isinstance(owner, torch.nn.Module):
        held = {name: value for name, value in held.items() if name not in _OF_TORCH and not is_lazy(value)}
    declared = [name for kind in _own_kinds(type(owner)) for name in getattr(kind, "__slots__", ())]
    held.update({name: getattr(owner, name) for name in declared if hasattr(owner, name)})
    for kind in _own_kinds(type(owner)):
        inherited = {name: value for name, value in vars(kind).items() if not name.startswith("__")}
        held = {**{n: v for n, v in inherited.items() if _is_state(v) and not isinstance(v, int | float)}, **held}
    for key, value in held.items():
        yield Slot(owner, key, f"{prefix}{key}"), value


def _closure(function: Any, prefix: str) -> Iterator[tuple[Slot, Any]]:
    function = getattr(function, "__func__", function)
    code, closed = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    for name, cell in zip(code.co_freevars if code else (), closed or (), strict=False):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if name != "__class__":
            yield Slot(cell, name, f"{prefix}{name}"), value


def _code_of(function: Any) -> Any:
    return getattr(inspect.unwrap(getattr(function, "__func__", function)), "__code__", None)


def _own_kinds(kind: type) -> list[type]:
    """The classes in the ancestry that somebody wrote, as opposed to those of a library."""
    return [base for base in kind.__mro__ if base.__module__.partition(".")[0] not in _LIBRARIES]


def _has_parts(value: Any) -> bool:
    if isinstance(value, dict | list | torch.nn.Module | FunctionType | MethodType):
        return True
    if isinstance(value, type | ModuleType | torch.Tensor | np.ndarray) or _is_jax(value):
        return False
    return hasattr(value, "__dict__") and bool(_own_kinds(type(value)))
