"""The arrays that a layer keeps, by role: weight and bias, running mean and running variance."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Library
from normkit.checking.target.cells import Slot
from normkit.checking.target.names import NAMES, Role, role_of

AFFINE: tuple[Role, ...] = ("weight", "bias")
RUNNING: tuple[Role, ...] = ("running_mean", "running_var")
ROLES: tuple[Role, ...] = (*AFFINE, *RUNNING)
BATCH_CACHES = {"mean", "var", "variance", "mu", "sigma", "std"}
"""Names of attributes that may hold the last batch's statistics as well as running ones."""


def slots_by_name(slots: Iterable[Slot], library: Library) -> dict[Role, Slot]:
    """Find the slots of each role by the names that people give them."""
    best: dict[Role, tuple[tuple[bool, int], Slot]] = {}
    for slot in slots:
        role = role_of(slot.key) if isinstance(slot.key, str) else None
        plain = str(slot.key).strip("_").lower()
        if role not in ROLES or (plain in BATCH_CACHES and role in RUNNING):
            continue
        held = slot.read()
        if not holds_numbers(library, held):
            continue
        commonness = NAMES[role].index(plain) if plain in NAMES[role] else len(NAMES[role])
        preference = (not library.owns(held), commonness)  # arrays before plain numbers
        if role not in best or preference < best[role][0]:
            best[role] = (preference, slot)
    return {role: slot for role, (_, slot) in best.items()}


def slots_by_path(slots: Iterable[Slot], library: Library, roles: Mapping[str, Role]) -> dict[Role, Slot]:
    """Find the slots whose roles are known by their paths."""
    found = {}
    for slot in slots:
        role = roles.get(slot.path)
        if role is not None and role not in found and holds_numbers(library, slot.read()):
            found[role] = slot
    return found


def holds_numbers(library: Library, held: Any) -> bool:
    """Whether a slot holds an array, a number or a list of numbers."""
    if library.owns(held) or (isinstance(held, int | float) and not isinstance(held, bool)):
        return True
    if not isinstance(held, list) or not held:
        return False
    return all(
        np.ndim(item) == 0 and not isinstance(item, str | bool | dict | list) and item is not None for item in held
    )


def as_values(library: Library, held: Any) -> Values:
    """Return a float64 copy of what a slot holds: an array, a number or a list of numbers."""
    if library.owns(held):
        return library.values(held)
    if isinstance(held, list):
        return np.array([float(item) for item in held])
    return np.array(float(held))
