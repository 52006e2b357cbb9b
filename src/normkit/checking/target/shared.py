"""State that outlives a layer: attributes of its class, globals of its module, cells of a ready-made closure.

Experiments build a layer many times, and two copies must not see each other's state. So each copy has its own values
for the shared places. They lie there from the moment that the copy is used until another copy is.
"""

import contextlib
import copy
from typing import Any

from normkit.checking.target.cells import Slot, shared_slots


class SharedState:
    """The shared places of a target.

    Args:
        definition: The class or the function.
    """

    def __init__(self, definition: Any) -> None:
        self._pristine: list[tuple[Slot, Any]] = []
        for slot in shared_slots(definition):
            with contextlib.suppress(Exception):  # what cannot be copied stays shared
                self._pristine.append((slot, copy.deepcopy(slot.read())))
        self._outside = [slot.read() for slot, _ in self._pristine]
        self._user: PrivateState | None = None

    @property
    def slots(self) -> list[Slot]:
        """The shared places."""
        return [slot for slot, _ in self._pristine]

    def private(self) -> "PrivateState":
        """Return fresh values, as they were before any experiment."""
        return PrivateState(self, [copy.deepcopy(value) for _, value in self._pristine])

    def let_in(self, user: "PrivateState | None") -> None:
        """Put the values of ``user`` in place, or those from outside, and keep what the last user left."""
        if self._user is user or not self._pristine:
            return
        if self._user is not None:
            self._user.values = [slot.read() for slot in self.slots]
        self._user = user
        for slot, value in zip(self.slots, self._outside if user is None else user.values, strict=True):
            slot.put(value)


class PrivateState:
    """One layer's own values for the shared places.

    Args:
        shared: The places.
        values: What lies there when this layer is used.
    """

    def __init__(self, shared: SharedState, values: list[Any]) -> None:
        self.shared = shared
        self.values = values

    def use(self) -> None:
        """Put the values in place."""
        self.shared.let_in(self)
