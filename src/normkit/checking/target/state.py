"""Find and set the arrays that a layer keeps: parameters and running statistics, by the names people give them."""

from collections.abc import Iterator, Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import numpy as np

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Library
from normkit.checking.target.names import NAMES, Role, role_of

AFFINE: tuple[Role, ...] = ("weight", "bias")
RUNNING: tuple[Role, ...] = ("running_mean", "running_var")
ROLES: tuple[Role, ...] = (*AFFINE, *RUNNING)
_BATCH_CACHES = {"mean", "var", "variance"}  # as attributes these hold the last batch, not a running average


@dataclass
class Slot:
    """An attribute of an object, or an entry of a dict, that holds an array."""

    owner: Any
    key: str
    path: str

    def read(self) -> Any:
        """Return what it holds now."""
        return self.owner[self.key] if isinstance(self.owner, dict) else getattr(self.owner, self.key)

    def write(self, library: Library, values: Values) -> None:
        """Make it hold ``values``: in place where the library does so, or as a new array or number."""
        held = self.read()
        if library.owns(held):
            fresh = library.make(np.reshape(values, tuple(held.shape)), library.dtype(held))
            if not library.overwrite(held, fresh):
                self.put(fresh)
        else:
            self.put(float(values.reshape(-1)[0]) if values.size == 1 else library.make(values))

    def put(self, value: Any) -> None:
        """Make it hold another object; in a frozen dataclass too, since it is a copy for experiments."""
        if isinstance(self.owner, dict):
            self.owner[self.key] = value
            return
        try:
            setattr(self.owner, self.key, value)
        except FrozenInstanceError:
            object.__setattr__(self.owner, self.key, value)


def find_slots(holder: Any, library: Library, unnamed: Mapping[str, Role] | None = None) -> dict[Role, Slot]:
    """Find the slots of weight, bias, running mean and running variance in an object, its parts and its dicts.

    Args:
        holder: The object, or a dict.
        library: The library whose arrays count.
        unnamed: Roles, by path, of slots whose names tell nothing.
    """
    best: dict[Role, tuple[tuple[bool, int], Slot]] = {}
    for slot in _slots_in(holder, "", 0):
        by_start = (unnamed or {}).get(slot.path)
        role = by_start or role_of(slot.key)
        plain = slot.key.strip("_").lower()
        if role not in ROLES or (by_start is None and plain in _BATCH_CACHES and role.startswith("running")):
            continue
        held = slot.read()
        if not (library.owns(held) or (isinstance(held, int | float | list) and not isinstance(held, bool))):
            continue
        commonness = NAMES[role].index(plain) if plain in NAMES[role] else len(NAMES[role])
        preference = (not library.owns(held), commonness)  # arrays before plain numbers
        if role not in best or preference < best[role][0]:
            best[role] = (preference, slot)
    return {role: slot for role, (_, slot) in best.items()}


def roles_by_start(holder: Any, library: Library) -> dict[str, Role]:
    """Find the roles, by path, that only the initial values of a new object tell.

    Among the parameters of a module with any name, ones are the weight and zeros the bias. Arrays called mean and var
    are running statistics where they start at zeros and at zeros or ones; elsewhere they hold the last batch's.
    """
    roles: dict[str, Role] = {}
    for slot in _slots_in(holder, "", 0):
        registered = slot.key in getattr(slot.owner, "_parameters", {}) and role_of(slot.key) not in ROLES
        cached = slot.key.strip("_").lower() in _BATCH_CACHES
        held = slot.read() if registered or cached else None
        if held is None or not library.owns(held):
            continue
        values = library.values(held)
        if values.size == 0 or values.min() != values.max() or values.flat[0] not in (0.0, 1.0):
            continue
        if registered:
            roles[slot.path] = "weight" if values.flat[0] else "bias"
        elif role_of(slot.key) == "running_var" or not values.any():
            roles[slot.path] = role_of(slot.key) or ""
    return roles


def _slots_in(holder: Any, prefix: str, depth: int) -> Iterator[Slot]:
    if isinstance(holder, dict):
        for key, value in holder.items():
            if isinstance(key, str):
                yield Slot(holder, key, f"{prefix}[{key!r}]")
                if isinstance(value, dict) and depth < 2:
                    yield from _slots_in(value, f"{prefix}[{key!r}]", depth + 1)
        return
    held = dict(getattr(holder, "__dict__", {}))
    registered = {**held.pop("_parameters", {}), **held.pop("_buffers", {})}
    children = held.pop("_modules", {}) or {}
    for key in [*registered, *_declared_in(holder), *held]:
        yield Slot(holder, key, f"{prefix}.{key}".lstrip("."))
    if depth < 2:
        for key, value in held.items():
            if isinstance(value, dict):
                yield from _slots_in(value, f"{prefix}.{key}".lstrip("."), depth + 1)
        for key, child in children.items():
            if child is not None:
                yield from _slots_in(child, f"{prefix}.{key}".lstrip("."), depth + 1)


def _declared_in(holder: Any) -> list[str]:
    names = [name for kind in type(holder).__mro__ for name in getattr(kind, "__slots__", ())]
    return [name for name in names if hasattr(holder, name) and role_of(name) in ROLES]


def as_values(library: Library, held: Any) -> Values:
    """Return a float64 copy of what a slot holds: an array, a number or a list of numbers."""
    if library.owns(held):
        return library.values(held)
    if isinstance(held, list):
        return np.array([float(item) for item in held])
    return np.array(float(held))
