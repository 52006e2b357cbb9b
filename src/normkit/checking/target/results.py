"""Where a call leaves its result: returned in some form, in an attribute of the layer, or in place of its input."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.cells import slots_in

_USUAL = ("output", "out", "y", "result", "outputs", "normalized", "value")


@dataclass(frozen=True)
class Result:
    """The output of a call, with what came beside it.

    Args:
        y: The output.
        extras: Further things that were returned.
        index: Its place among the things that were returned, where there were several.
        wrapper: The class of the object that held the output, where it is one that somebody wrote.
        place: Where the output was found, for people; empty where it was returned.
    """

    y: Array
    extras: list[Any] = field(default_factory=list)
    index: int | None = None
    wrapper: type | None = None
    place: str = ""

    def further_arrays(self, library: Library) -> list[Array]:
        """Return the further arrays, those inside tuples, lists and dicts too."""
        return [array for extra in self.extras for array in _arrays_in(extra, library)]


@dataclass(frozen=True)
class Before:
    """What there was before a call, as far as its result may lie there.

    Args:
        places: The identity of every array that the object held, by path.
        x: The values of the input; None where the result is not expected in their place.
    """

    places: Mapping[str, int] = field(default_factory=dict)
    x: Values | None = None


def read_result(
    library: Library, returned: Any, x: Array, holder: Any, before: Before, index: int | None = None
) -> Result:
    """Find the output of a call.

    Args:
        library: The library whose arrays count.
        returned: What the call returned.
        x: The input that it got.
        holder: The object that was called.
        before: What there was before the call.
        index: Where among several things the output was before; None takes the first of the input's shape.
    Raises:
        TypeError: nothing that was returned or left anywhere is an array.
    """
    if library.owns(returned):
        return Result(returned)
    if returned is None:
        return _left_behind(library, x, holder, before)
    if (listed := _from_lists(library, returned, library.dtype(x))) is not None:
        return Result(listed)
    items = list(returned.values()) if isinstance(returned, Mapping) else returned
    if isinstance(items, tuple | list):
        items = [item if (listed := _from_lists(library, item, library.dtype(x))) is None else listed for item in items]
        arrays = [item for item in items if library.owns(item)]
        if not arrays:
            wrapped = [item for item in items if hasattr(item, "__dict__")]
            if len(wrapped) == 1:
                return _unwrapped(library, wrapped[0], x)
            raise TypeError(f"it returned a {type(returned).__name__} without an array in it")
        y = next((item for item in arrays if tuple(item.shape) == tuple(x.shape)), arrays[0])
        if index is not None and index < len(items) and library.owns(items[index]):
            y = items[index]
        place = next(number for number, item in enumerate(items) if item is y)
        return Result(y, [item for item in items if item is not y], place)
    return _unwrapped(library, returned, x)


def _from_lists(library: Library, value: Any, dtype: str) -> Array | None:
    """An array of the numbers in nested lists, which have no dtype of their own; None for anything else."""
    if not isinstance(value, list) or not value or library.records_graph or library.owns(value[0]):
        return None
    try:
        numbers = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return library.make(numbers, dtype)


def places(library: Library, holder: Any) -> dict[str, int]:
    """Return the identity of every array that an object holds, by path."""
    return {slot.path: id(value) for slot in slots_in(holder) if library.owns(value := _read(slot))}


def _left_behind(library: Library, x: Array, holder: Any, before: Before) -> Result:
    """The output of a call that returned nothing: a new attribute of the input's shape, or the input itself."""
    found = {}
    for slot in slots_in(holder):
        value = _read(slot)
        if library.owns(value) and tuple(value.shape) == tuple(x.shape) and value is not x:
            found[slot.path] = value
    new = {path: value for path, value in found.items() if before.places.get(path) != id(value)}
    named = [path for path in _USUAL if path in new]
    if named or new:
        place = named[0] if named else list(new)[-1]
        return Result(new[place], place=f"in self.{place}")
    if before.x is None or np.array_equal(before.x, library.values(x), equal_nan=True):
        raise TypeError("it returned None, and left no array of the input's shape")
    return Result(x, place="in place of its input")


def _unwrapped(library: Library, returned: Any, x: Array) -> Result:
    """The one array of the input's shape that an object holds."""
    kind = type(returned)
    held = [value for slot in slots_in(returned) if library.owns(value := _read(slot))] if _is_object(returned) else []
    shaped = [value for value in held if tuple(value.shape) == tuple(x.shape)]
    found = shaped if len(shaped) == 1 else held
    if len(found) != 1:
        raise TypeError(f"it returned {_named(kind)}, not an array")
    return Result(found[0], wrapper=kind, place=f"in the {kind.__name__} that it returned")


def _named(kind: type) -> str:
    return kind.__name__ if kind.__module__ == "builtins" else f"an object of its own, a {kind.__name__}"


def _is_object(value: Any) -> bool:
    return hasattr(value, "__dict__") and not isinstance(value, type)


def _read(slot: Any) -> Any:
    try:
        return slot.read()
    except Exception:
        return None


def _arrays_in(result: Any, library: Library) -> Iterator[Array]:
    if library.owns(result):
        yield result
    elif isinstance(result, Mapping | tuple | list):
        for item in result.values() if isinstance(result, Mapping) else result:
            yield from _arrays_in(item, library)
