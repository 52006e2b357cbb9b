"""One built copy of the target, driven through one interface whatever the target is."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from normkit.checking.arrays import Array, Library, Values
from normkit.checking.names import Role, role_of
from normkit.checking.signature import Arguments, Signature
from normkit.checking.slots import Slot, as_values, find_slots, roles_by_start

_AFFINE: tuple[Role, ...] = ("weight", "bias")


@dataclass
class Gradients:
    """What the target's backward pass gave; None where it gave nothing."""

    dx: Values | None
    affine: dict[Role, Values] = field(default_factory=dict)


class Layer(ABC):
    """A layer under test.

    Args:
        library: The array library it works on.
        call: The arguments of its forward call.
        arguments: What to pass to it, by role.
    """

    def __init__(self, library: Library, call: Signature, arguments: Arguments) -> None:
        self.library = library
        self.call = call
        self.arguments = arguments
        self.extras: list[Any] = []
        self.free = False
        """Whether calls leave the grad mode alone, so that a change of it shows."""

    @abstractmethod
    def slots(self) -> dict[Role, Slot]:
        """The arrays it keeps, by role."""

    @abstractmethod
    def _set_mode(self, training: bool) -> None:
        """Select training or evaluation by other means than an argument of the call."""

    @abstractmethod
    def convert(self, dtype: str) -> None:
        """Bring what it keeps to a dtype, as far as its users would."""

    @abstractmethod
    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any: ...

    @abstractmethod
    def backward(self, x: Array, dy: Values, training: bool) -> Gradients | None:
        """Gradients of sum(y * dy) by the target's own means; None where it has none."""

    def run(self, x: Array, training: bool = True, grad: bool | None = None) -> Array:
        """Call it on an array of its own library.

        Args:
            x: The input.
            training: Whether to ask for training or for evaluation.
            grad: Whether gradients are recorded; None means as usual, only in training.
        """
        self._set_mode(training)
        modes: dict[Role, Any] = {"training": training, "evaluation": not training}
        if "mode" in self.call.parameters or self.call.name_of("mode"):
            modes["mode"] = self._mode_word(training)
        args, kwargs = self.call.fill(x, self.arguments.also({**self._arrays(), **modes}))
        if self.free:
            return self._output(self._invoke(args, kwargs), x)
        with self.library.grad_mode(training if grad is None else grad):
            result = self._invoke(args, kwargs)
        return self._output(result, x)

    def forward(self, values: Values, training: bool = True, grad: bool | None = None) -> Values:
        """Call it on float64 values, in the precision it is measured in."""
        return self.library.values(self.run(self.library.make(values), training, grad))

    def _arrays(self) -> dict[Role, Any]:
        return {}

    def _mode_word(self, training: bool) -> str:
        return "train" if training else "test"

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

    def beside(self) -> list[Array]:
        """The arrays that the last call returned beside the output, those inside tuples, lists and dicts too."""
        return [array for extra in self.extras for array in _arrays_in(extra, self.library)]

    def read(self, *roles: Role) -> dict[Role, Values]:
        """Copies of the arrays it keeps."""
        slots = self.slots()
        return {role: as_values(self.library, slots[role].read()) for role in roles if role in slots}

    def write(self, **values: Values) -> None:
        """Set arrays it keeps; roles that it does not keep are left out."""
        slots = self.slots()
        with self.library.grad_mode(False):
            for role, value in values.items():
                if role in slots:
                    held = as_values(self.library, slots[role].read())
                    slots[role].write(
                        self.library, np.broadcast_to(value.reshape(-1), held.size) if held.size else value
                    )

    def _autograd(self, x: Array, dy: Values, training: bool) -> Gradients:
        tracked = x.clone().requires_grad_(True)
        held = {role: slot.read() for role, slot in self.slots().items() if role in ("weight", "bias")}
        parameters = {role: value for role, value in held.items() if self.library.owns(value) and value.requires_grad}
        for parameter in parameters.values():
            parameter.grad = None
        with self.library.grad_mode(True):
            y = self.run(tracked, training, grad=True)
            if not y.requires_grad:
                return Gradients(None)
            (y * self.library.make(dy, self.library.dtype(y))).sum().backward()
        grads = {role: parameter.grad for role, parameter in parameters.items() if parameter.grad is not None}
        values = {role: self.library.values(grad) for role, grad in grads.items()}
        return Gradients(None if tracked.grad is None else self.library.values(tracked.grad), values)

    def _vjp(self, x: Array, dy: Values, training: bool) -> Gradients:
        """Gradients by jax.vjp, through the input and the weight and bias that it keeps."""
        import jax

        slots = self.slots()
        roles = [role for role in _AFFINE if role in slots and self.library.owns(slots[role].read())]

        def function(x: Array, *parameters: Array) -> Array:
            for role, parameter in zip(roles, parameters, strict=True):
                slots[role].put(parameter)
            return self.run(x, training)

        y, pull = jax.vjp(function, x, *(slots[role].read() for role in roles))
        dx, *rest = pull(self.library.make(dy, self.library.dtype(y)))
        values = {role: self.library.values(grad) for role, grad in zip(roles, rest, strict=True)}
        return Gradients(self.library.values(dx), values)


class ObjectLayer(Layer):
    """An object that is called: an nn.Module, or any class with ``forward`` or ``__call__``."""

    def __init__(self, thing: Any, library: Library, call: Signature, arguments: Arguments) -> None:
        super().__init__(library, call, arguments)
        self.thing = thing
        self.unnamed = roles_by_start(thing, library)

    def slots(self) -> dict[Role, Slot]:
        return find_slots(self.thing, self.library, self.unnamed)

    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if callable(self.thing):
            return self.thing(*args, **kwargs)
        return self.thing.forward(*args, **kwargs)

    def _set_mode(self, training: bool) -> None:
        method = getattr(self.thing, "train" if training else "eval", None)
        if inspect.ismethod(method):
            method()
            return
        for name in list(getattr(self.thing, "__dict__", {})):
            role, held = role_of(name), getattr(self.thing, name)
            if role == "training" and isinstance(held, bool | int):
                setattr(self.thing, name, training)
            elif role == "evaluation" and isinstance(held, bool | int):
                setattr(self.thing, name, not training)
            elif role == "mode" and isinstance(held, str):
                setattr(self.thing, name, self._mode_word(training))

    def convert(self, dtype: str) -> None:
        import torch

        if isinstance(self.thing, torch.nn.Module):
            self.thing.to(getattr(torch, dtype))

    def backward(self, x: Array, dy: Values, training: bool) -> Gradients | None:
        if self.library.name == "torch":
            return self._autograd(x, dy, training)
        if self.library.name == "jax":
            return self._vjp(x, dy, training)
        method = getattr(self.thing, "backward", None)
        if not callable(method):
            return None
        self.run(x, training, grad=True)
        required = [p for p in inspect.signature(method).parameters.values() if p.default is p.empty]
        cache = self.extras[-1:] if len(required) > 1 else []
        result = method(self.library.make(dy), *cache)
        found = read_gradients(self.library, result, x)
        for name, held in vars(self.thing).items():
            role = gradient_role(name)
            if role and role not in found.affine and self.library.owns(held):
                found.affine[role] = self.library.values(held)
        return found


class FunctionLayer(Layer):
    """A function, with the arrays that its caller is meant to keep."""

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
        self.settings: dict[str, Any] | None = {**call.given.get(settings, {})} if settings else None
        if settings:
            call.given.pop(settings, None)

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

    def _set_mode(self, training: bool) -> None:
        if self.settings is not None:
            self.settings["mode"] = self._mode_word(training)

    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return self.function(*args, **kwargs)

    def _output(self, result: Any, x: Array) -> Array:
        y = super()._output(result, x)
        beside = self.beside() if self.returned else []
        for index, role in self.returned.items():
            if index < len(beside) and role in self.arrays:
                self.arrays[role] = beside[index]
        return y

    def backward(self, x: Array, dy: Values, training: bool) -> Gradients | None:
        if self.library.name == "torch" and self.backward_function is None:
            for role in ("weight", "bias"):
                if role in self.arrays:
                    self.arrays[role] = self.arrays[role].detach().requires_grad_(True)
            return self._autograd(x, dy, training)
        if self.library.name == "jax":
            return self._vjp(x, dy, training)
        if self.backward_function is None:
            return None
        self.run(x, training)
        if not self.extras:
            return None
        return read_gradients(self.library, self.backward_function(self.library.make(dy), self.extras[-1]), x)


def _arrays_in(result: Any, library: Library) -> Iterator[Array]:
    if library.owns(result):
        yield result
    elif isinstance(result, Mapping | tuple | list):
        for item in result.values() if isinstance(result, Mapping) else result:
            yield from _arrays_in(item, library)


def gradient_role(name: str) -> Role | None:
    """weight or bias for the names of their gradients: dgamma, grad_weight, beta_grad."""
    plain = name.strip("_").lower()
    for affix in ("grad_", "d_", "d"):
        if plain.startswith(affix) and role_of(plain.removeprefix(affix)) in ("weight", "bias"):
            return role_of(plain.removeprefix(affix))
    for affix in ("_grad", "_gradient"):
        if plain.endswith(affix) and role_of(plain.removesuffix(affix)) in ("weight", "bias"):
            return role_of(plain.removesuffix(affix))
    return None


def read_gradients(library: Library, result: Any, x: Array) -> Gradients:
    """dx, dweight and dbias out of what a hand-written backward function returned, in the usual order."""
    items = list(result) if isinstance(result, tuple | list) else [result]
    arrays = [item for item in items if library.owns(item)]
    dx = next((item for item in arrays if tuple(item.shape) == tuple(x.shape)), None)
    rest = [library.values(item) for item in arrays if item is not dx]
    return Gradients(None if dx is None else library.values(dx), dict(zip(_AFFINE, rest, strict=False)))
