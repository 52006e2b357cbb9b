"""One built copy of the target, driven through one interface whatever the target is."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from normkit.checking.patterns import Values
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.backward import (
    CannotCallError,
    Gradients,
    call_backward,
    kept_gradients,
    read_gradients,
)
from normkit.checking.target.cells import Slot, slots_in
from normkit.checking.target.made import Made
from normkit.checking.target.modes import Mode
from normkit.checking.target.names import Role
from normkit.checking.target.results import Before, Result, places, read_result
from normkit.checking.target.shared import PrivateState
from normkit.checking.target.signature import Arguments, Signature
from normkit.checking.target.state import AFFINE, as_values, slots_by_name, slots_by_path


@dataclass(frozen=True)
class Passing:
    """The form in which a target takes its input.

    Args:
        transposed: As (C, N) where an input is (N, C).
        lists: As nested lists of numbers.
        one_by_one: One sample at a time, without an axis for the batch.
    """

    transposed: bool = False
    lists: bool = False
    one_by_one: bool = False


@dataclass(frozen=True)
class Wiring:
    """How a target is called and read.

    Args:
        method: The method of it that is the forward pass; None calls the object itself.
        mode: What switches it between training and evaluation.
        roles: The roles of what it keeps, by path; None tells them by their names.
        returned: The roles of its further results, by position: new values of arrays that the caller keeps.
        result_index: Where among several results the output is; None tells it by its shape.
        passing: The form in which it takes its input.
        axis_names: One letter an axis of its inputs, for further inputs made to their shape.
        backward_function: A backward function written by hand, where there is one.
    """

    method: str | None
    mode: Mode
    roles: Mapping[str, Role] | None
    returned: Mapping[int, Role]
    result_index: int | None
    passing: Passing
    axis_names: str
    backward_function: Callable[..., Any] | None


_BACKWARD = ("backward", "backward_pass", "backprop", "bprop", "back", "backward_propagation", "grad")


class Adapter:
    """A layer under test.

    Args:
        instance: The object that is called, or the function.
        library: The array library it works on.
        call: The arguments of its forward call.
        arguments: What to pass to it.
        private: Its own values for state that outlives it.
        given: The arrays that its caller keeps, by the name of their argument.
        settings: The dict of settings that it takes; None where it takes none.
        wiring: How it is called and read.
    """

    sets_grad_mode = True
    """Whether calls set the grad mode; otherwise what the target does to it shows afterwards."""

    def __init__(
        self,
        instance: Any,
        library: Library,
        call: Signature,
        arguments: Arguments,
        private: PrivateState,
        given: dict[str, Array],
        settings: dict[str, Any] | None,
        wiring: Wiring,
    ) -> None:
        self.instance = instance
        self.library = library
        self.call = call
        self.arguments = arguments
        self.private = private
        self.given = given
        self.settings = settings
        self.wiring = wiring
        self.result: Result | None = None

    @property
    def mode(self) -> Mode:
        """What switches it between training and evaluation."""
        return self.wiring.mode

    # What it keeps

    def all_slots(self) -> Iterator[Slot]:
        """Yield everything that may hold an array: what the caller keeps, what it holds, what it shares."""
        self.private.use()
        yield from (Slot(self.given, name, name) for name in self.given)
        if self.settings is not None:
            yield from slots_in(self.settings)
        if not self._is_plain_function:
            yield from slots_in(self.instance)
        for slot in self.private.shared.slots:
            yield slot
            held = slot.read()
            if isinstance(held, dict | list) or hasattr(held, "__dict__"):
                yield from (replace(part, path=_joined(slot.path, part.path)) for part in slots_in(held))

    @property
    def _is_plain_function(self) -> bool:
        return inspect.isroutine(self.instance) and getattr(self.instance, "__closure__", None) is None

    def slots(self) -> dict[Role, Slot]:
        """Find what holds its arrays, by role."""
        if self.wiring.roles is None:
            return slots_by_name(self.all_slots(), self.library)
        return slots_by_path(self.all_slots(), self.library, self.wiring.roles)

    def read(self, *roles: Role) -> dict[Role, Values]:
        """Copy arrays that it holds."""
        slots = self.slots()
        return {role: as_values(self.library, slots[role].read()) for role in roles if role in slots}

    def write(self, **values: Values) -> None:
        """Set arrays that it holds; other roles are ignored."""
        slots = self.slots()
        for role, value in values.items():
            if role in slots:
                self.fill(slots[role], value)

    def fill(self, slot: Slot, value: Values) -> None:
        """Set one array that it holds, spreading a single number over it."""
        with self.library.grad_mode(enabled=False):
            size = as_values(self.library, slot.read()).size
            slot.write(self.library, np.broadcast_to(value.reshape(-1), size) if size else value)

    # Calls

    def run(self, x: Array, *, training: bool = True, grad: bool | None = None) -> Array:
        """Call it on an array of its own library.

        Args:
            x: The input.
            training: Whether to ask for training or for evaluation.
            grad: Whether gradients are recorded; None means as usual, only in training.
        """
        self.private.use()
        self._switch(training=training)
        if not self.sets_grad_mode:
            return self._passed(x, training=training)
        with self.library.grad_mode(enabled=training if grad is None else grad):
            return self._passed(x, training=training)

    def _passed(self, x: Array, *, training: bool) -> Array:
        """Call it on an input in the form in which it takes one."""
        if self.wiring.passing.one_by_one:
            return self.library.stack([self._called(x[index], training=training) for index in range(len(x))])
        if self.wiring.passing.transposed:
            y = self._called(self.library.transpose(x, (1, 0)), training=training)
            return self.library.transpose(y, (1, 0)) if len(y.shape) == 2 else y
        return self._called(x, training=training)

    def _called(self, x: Array, *, training: bool) -> Array:
        passed = self.library.values(x).tolist() if self.wiring.passing.lists else x
        args, kwargs = self.call.fill(passed, self._arguments(x, training=training))
        before = Before()
        if self.result is None or self.result.place:
            kept = self.library.values(x) if self.library.mutable else None
            before = Before(places(self.library, self.instance), kept)
        returned = self._invoke(args, kwargs, training=training)
        self.result = read_result(self.library, returned, x, self.instance, before, self.wiring.result_index)
        self._keep_returned(self.result)
        return self.result.y

    def forward(self, values: Values, *, training: bool = True, grad: bool | None = None) -> Values:
        """Call it on float64 values, in the precision it is measured in."""
        return self.library.values(self.run(self.library.make(values), training=training, grad=grad))

    def _invoke(self, args: tuple[Any, ...], kwargs: dict[str, Any], *, training: bool) -> Any:
        methods = [switch.value(training=training) for switch in self.mode if switch.kind == "forward"]
        method = methods[0] if methods else self.wiring.method
        function = self.instance if method is None else getattr(self.instance, method)
        return function(*args, **kwargs)

    def _arguments(self, x: Array, *, training: bool) -> Arguments:
        named: dict[str, Any] = dict(self.given)
        if self.settings is not None:
            named[self.call.name_of("settings") or ""] = self.settings
        named |= {s.name: s.value(training=training) for s in self.mode if s.kind == "argument"}
        made = {
            name: value.make(self.library, tuple(x.shape), self.wiring.axis_names, self.library.dtype(x))
            for name, value in {**self.arguments.stand_ins, **self.call.fixed}.items()
            if isinstance(value, Made)
        }
        a = self.arguments
        return Arguments(a.overrides, {**a.named, **named}, a.sizes, a.defaults, a.stand_ins, made)

    def _switch(self, *, training: bool) -> None:
        """Select training or evaluation by other means than an argument of the call."""
        for switch in self.mode:
            value = switch.value(training=training)
            if switch.kind == "method":
                getattr(self.instance, value[0])(*value[1:])
            elif switch.kind == "attribute":
                setattr(self.instance, switch.name, value)
            elif switch.kind == "setting" and self.settings is not None:
                self.settings[switch.name] = value
        if inspect.isfunction(self.instance) and not self.mode:
            for module in self._modules_inside():
                module.train(training)

    def _modules_inside(self) -> list[torch.nn.Module]:
        """The modules that a closure holds: an adapter's callable often wraps one."""
        held = [slot.read() for slot in slots_in(self.instance)]
        return [value for value in held if isinstance(value, torch.nn.Module)]

    def _keep_returned(self, result: Result) -> None:
        """Keep the further results that are new values of what the caller keeps."""
        if not self.wiring.returned:
            return
        extra = result.further_arrays(self.library)
        slots = self.slots()
        for index, role in self.wiring.returned.items():
            if index < len(extra) and role in slots and slots[role].owner is self.given:
                self.given[slots[role].key] = extra[index]

    def extra_outputs(self) -> list[Array]:
        """Return the further arrays that the last call returned, those inside tuples, lists and dicts too."""
        return self.result.further_arrays(self.library) if self.result else []

    def convert(self, dtype: str) -> None:
        """Convert its state to a dtype, as far as its users would."""
        modules = [self.instance] if isinstance(self.instance, torch.nn.Module) else self._modules_inside()
        for module in modules:
            module.to(getattr(torch, dtype))
        for name, held in self.given.items():
            if self.library.owns(held):
                self.given[name] = self.library.make(self.library.values(held), dtype)

    # Gradients

    def backward(self, x: Array, dy: Values) -> Gradients | None:
        """Return the gradients of sum(y * dy) in training by the target's own means; None where it has none."""
        by_hand = None if self.wiring.passing.one_by_one or self.wiring.passing.lists else self._backward_by_hand()
        if by_hand is None or not self.library.records_graph:
            found = self._differentiate(x, dy)
            if found is not None:
                return found
        if by_hand is None:
            return None
        self.run(x, grad=True)
        before = places(self.library, self.instance)
        wanted = self.library.make(dy)
        passed = self.library.transpose(wanted, (1, 0)) if self.wiring.passing.transposed else wanted
        given = self.library.transpose(x, (1, 0)) if self.wiring.passing.transposed else x
        cache = self.result.extras if self.result else []
        failure: CannotCallError | None = None
        try:
            returned = call_backward(by_hand, passed, given, cache, {r: s.read() for r, s in self.slots().items()})
        except CannotCallError as error:  # what it left behind before counts all the same
            returned, failure = None, error
        slots = {role: slot for role, slot in self.slots().items() if role in AFFINE}
        found = read_gradients(self.library, returned, passed)
        after = [] if self._is_plain_function else list(slots_in(self.instance))
        kept_gradients(self.library, found, after, before, slots, tuple(passed.shape), by_name=failure is None)
        if failure is not None:
            found.failure = failure
        if self.wiring.passing.transposed and found.dx is not None and found.dx.ndim == 2:
            found.dx = found.dx.T
        return found

    def _backward_by_hand(self) -> Callable[..., Any] | None:
        if self.wiring.backward_function is not None:
            return self.wiring.backward_function
        if inspect.isroutine(self.instance) or isinstance(self.instance, torch.nn.Module):
            return None
        names = [*([self.wiring.method.replace("forward", "backward")] if self.wiring.method else []), *_BACKWARD]
        found = (getattr(self.instance, name, None) for name in names if name != self.wiring.method)
        return next((method for method in found if inspect.isroutine(method)), None)

    def _differentiate(self, x: Array, dy: Values) -> Gradients | None:
        """Return gradients by the library's own differentiation, through the input and what it keeps of weight, bias.

        None where the library has none.
        """
        slots = {role: slot for role, slot in self.slots().items() if role in AFFINE}
        for slot in slots.values():
            if slot.owner is self.given and self.library.owns(slot.read()):
                slot.put(self.library.as_parameter(slot.read()))
        kept = {role: slot for role, slot in slots.items() if self.library.owns(slot.read())}
        whole = [replace(slot, part=None) for slot in kept.values()]
        found = self.library.differentiate(lambda x: self.run(x, grad=True), x, dy, whole)
        if found is None:
            return None
        dx, of_whole = found
        parts = [slot.part for slot in kept.values()]
        grads = [
            grad if grad is None or part is None else grad[part] for grad, part in zip(of_whole, parts, strict=True)
        ]
        affine = {role: grad for role, grad in zip(kept, grads, strict=True) if grad is not None}
        return Gradients(
            None if dx is None else self.library.values(dx),
            {role: self.library.values(grad) for role, grad in affine.items()},
        )


def _joined(path: str, part: str) -> str:
    return f"{path}{part}" if part.startswith("[") else f"{path}.{part}"
