"""One built copy of the target, driven through one interface whatever the target is."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.backward import Gradients, gradient_role, read_gradients
from normkit.checking.target.names import Role, role_of
from normkit.checking.target.signature import Arguments, Signature
from normkit.checking.target.state import AFFINE, Slot, as_values, find_slots, roles_by_start


class Adapter(ABC):
    """A layer under test.

    Args:
        library: The array library it works on.
        call: The arguments of its forward call.
        arguments: What to pass to it, by role.
    """

    sets_grad_mode = True
    """Whether calls set the grad mode; otherwise what the target does to it shows afterwards."""

    def __init__(self, library: Library, call: Signature, arguments: Arguments) -> None:
        self.library = library
        self.call = call
        self.arguments = arguments
        self.extras: list[Any] = []

    @abstractmethod
    def slots(self) -> dict[Role, Slot]:
        """Find what holds its arrays, by role."""

    @abstractmethod
    def _set_mode(self, *, training: bool) -> None:
        """Select training or evaluation by other means than an argument of the call."""

    @abstractmethod
    def convert(self, dtype: str) -> None:
        """Convert its state to a dtype, as far as its users would."""

    @abstractmethod
    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    @abstractmethod
    def backward(self, x: Array, dy: Values) -> Gradients | None:
        """Return the gradients of sum(y * dy) in training by the target's own means; None where it has none."""

    def run(self, x: Array, *, training: bool = True, grad: bool | None = None) -> Array:
        """Call it on an array of its own library.

        Args:
            x: The input.
            training: Whether to ask for training or for evaluation.
            grad: Whether gradients are recorded; None means as usual, only in training.
        """
        self._set_mode(training=training)
        modes: dict[Role, Any] = {"training": training, "evaluation": not training}
        if "mode" in self.call.parameters or self.call.name_of("mode"):
            modes["mode"] = _mode_word(training=training)
        args, kwargs = self.call.fill(x, self.arguments.with_values({**self._arrays(), **modes}))
        if not self.sets_grad_mode:
            return self._output(self._invoke(args, kwargs), x)
        with self.library.grad_mode(enabled=training if grad is None else grad):
            result = self._invoke(args, kwargs)
        return self._output(result, x)

    def forward(self, values: Values, *, training: bool = True, grad: bool | None = None) -> Values:
        """Call it on float64 values, in the precision it is measured in."""
        return self.library.values(self.run(self.library.make(values), training=training, grad=grad))

    def _arrays(self) -> dict[Role, Any]:
        return {}

    def _output(self, result: Any, x: Array) -> Array:
        self.extras = []
        if self.library.owns(result):
            return result
        if isinstance(result, Mapping):
            result = list(result.values())
        if not isinstance(result, tuple | list):
            raise TypeError(f"it returned {type(result).__name__}, not an array")
        arrays = [item for item in result if self.library.owns(item)]
        if not arrays:
            raise TypeError(f"it returned a {type(result).__name__} without an array in it")
        y = next((item for item in arrays if tuple(item.shape) == tuple(x.shape)), arrays[0])
        self.extras = [item for item in result if item is not y]
        return y

    def extra_outputs(self) -> list[Array]:
        """Return the further arrays that the last call returned, those inside tuples, lists and dicts too."""
        return [array for extra in self.extras for array in _arrays_in(extra, self.library)]

    def read(self, *roles: Role) -> dict[Role, Values]:
        """Copy arrays that it holds."""
        slots = self.slots()
        return {role: as_values(self.library, slots[role].read()) for role in roles if role in slots}

    def write(self, **values: Values) -> None:
        """Set arrays that it holds; other roles are ignored."""
        slots = self.slots()
        with self.library.grad_mode(enabled=False):
            for role, value in values.items():
                if role in slots:
                    size = as_values(self.library, slots[role].read()).size
                    slots[role].write(self.library, np.broadcast_to(value.reshape(-1), size) if size else value)

    def _differentiate(self, x: Array, dy: Values) -> Gradients | None:
        """Return gradients by the library's own differentiation, through the input and what it keeps of weight, bias.

        None where the library has none.
        """
        kept = {role: slot for role, slot in self.slots().items() if role in AFFINE and self.library.owns(slot.read())}
        found = self.library.differentiate(lambda x: self.run(x, grad=True), x, dy, list(kept.values()))
        if found is None:
            return None
        dx, grads = found
        affine = {role: grad for role, grad in zip(kept, grads, strict=True) if grad is not None}
        return Gradients(
            None if dx is None else self.library.values(dx),
            {role: self.library.values(grad) for role, grad in affine.items()},
        )


class ObjectAdapter(Adapter):
    """An object that is called: an nn.Module, or any class with ``forward`` or ``__call__``."""

    def __init__(self, instance: Any, library: Library, call: Signature, arguments: Arguments) -> None:
        super().__init__(library, call, arguments)
        self.instance = instance
        self.unnamed = roles_by_start(instance, library)

    def slots(self) -> dict[Role, Slot]:
        return find_slots(self.instance, self.library, self.unnamed)

    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if callable(self.instance):
            return self.instance(*args, **kwargs)
        return self.instance.forward(*args, **kwargs)

    def _set_mode(self, *, training: bool) -> None:
        method = getattr(self.instance, "train" if training else "eval", None)
        if inspect.ismethod(method):
            method()
            return
        for name in list(getattr(self.instance, "__dict__", {})):
            role, held = role_of(name), getattr(self.instance, name)
            if role == "training" and isinstance(held, bool | int):
                setattr(self.instance, name, training)
            elif role == "evaluation" and isinstance(held, bool | int):
                setattr(self.instance, name, not training)
            elif role == "mode" and isinstance(held, str):
                setattr(self.instance, name, _mode_word(training=training))

    def convert(self, dtype: str) -> None:
        if isinstance(self.instance, torch.nn.Module):
            self.instance.to(getattr(torch, dtype))

    def backward(self, x: Array, dy: Values) -> Gradients | None:
        found = self._differentiate(x, dy)
        if found is not None:
            return found
        method = getattr(self.instance, "backward", None)
        if not callable(method):
            return None
        self.run(x, grad=True)
        required = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
        cache = self.extras[-1:] if len(required) > 1 else []
        found = read_gradients(self.library, method(self.library.make(dy), *cache), x)
        for name, held in vars(self.instance).items():
            role = gradient_role(name)
            if role and role not in found.affine and self.library.owns(held):
                found.affine[role] = self.library.values(held)
        return found


class FunctionAdapter(Adapter):
    """A function, with the arrays that its caller is meant to keep.

    Args:
        function: The function.
        library: The array library it works on.
        call: The arguments of its call.
        arguments: What to pass to it, by role.
        arrays: The arrays that the caller keeps, by role.
        returned: The roles of its further results, by position.
        backward_function: A backward function written by hand, where there is one.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        library: Library,
        call: Signature,
        arguments: Arguments,
        arrays: dict[Role, Array],
        returned: Mapping[int, Role],
        backward_function: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__(library, call, arguments)
        self.function = function
        self.arrays = arrays
        self.returned = dict(returned)
        self.backward_function = backward_function
        settings = call.name_of("settings")
        self.settings: dict[str, Any] | None = {**call.fixed.get(settings, {})} if settings else None
        if settings:
            call.fixed.pop(settings, None)

    def slots(self) -> dict[Role, Slot]:
        inside = find_slots(self.settings, self.library) if self.settings is not None else {}
        return {**inside, **{role: Slot(self.arrays, role, role) for role in self.arrays}}

    def set_settings(self, values: Mapping[str, Any]) -> None:
        """Set entries of the dict of settings."""
        if self.settings is not None:
            self.settings.update(values)

    def convert(self, dtype: str) -> None:
        self.arrays = {role: self.library.make(self.library.values(held), dtype) for role, held in self.arrays.items()}

    def _arrays(self) -> dict[Role, Any]:
        if self.settings is None:
            return dict(self.arrays)
        return {**self.arrays, "settings": self.settings}

    def _set_mode(self, *, training: bool) -> None:
        if self.settings is not None:
            self.settings["mode"] = _mode_word(training=training)

    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.function(*args, **kwargs)

    def _output(self, result: Any, x: Array) -> Array:
        y = super()._output(result, x)
        extra = self.extra_outputs() if self.returned else []
        for index, role in self.returned.items():
            if index < len(extra) and role in self.arrays:
                self.arrays[role] = extra[index]
        return y

    def backward(self, x: Array, dy: Values) -> Gradients | None:
        if self.backward_function is None or not self.library.records_graph:
            for role in AFFINE:
                if role in self.arrays:
                    self.arrays[role] = self.library.as_parameter(self.arrays[role])
            found = self._differentiate(x, dy)
            if found is not None:
                return found
        if self.backward_function is None:
            return None
        self.run(x)
        if not self.extras:
            return None
        return read_gradients(self.library, self.backward_function(self.library.make(dy), self.extras[-1]), x)


def _mode_word(*, training: bool) -> str:
    return "train" if training else "test"


def _arrays_in(result: Any, library: Library) -> Iterator[Array]:
    if library.owns(result):
        yield result
    elif isinstance(result, Mapping | tuple | list):
        for item in result.values() if isinstance(result, Mapping) else result:
            yield from _arrays_in(item, library)
