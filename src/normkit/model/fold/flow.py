"""Which operation or layer makes each tensor of a forward pass, and which use it: recorded while the model runs.

A tensor alone is not enough: ``relu_`` changes the values of the tensor that it returns. What is followed is a *value*:
a tensor, and how many times its memory has been written to.
"""

import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from normkit.model.data import map_tensors, tensors_in

__all__ = ["Flow", "Step", "Value", "record"]

Value = tuple[int, int]
"""The number of a tensor, and how many times its memory had been written to."""

_NUMBER: Final = "_normkit_number"  # the attribute that holds a tensor's number
_NUMBERS: Final = count()  # never the same twice: a constant of a model's file keeps its own


class Step(NamedTuple):
    """An operation, or the call of a layer.

    Args:
        name: The name of the operation ("relu_"), or of the layer in the model.
        inputs: The values that it used.
        outputs: The values that it made.
        arguments: The arguments of an operation, with None for each tensor.
        is_layer: Whether it is a layer.
    """

    name: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    arguments: tuple[Any, ...] = ()
    is_layer: bool = False


class Flow:
    """The steps of a forward pass.

    Args:
        makers: The step that made a value; inputs of the model have none.
        users: The steps that used it.
        calls: The calls of each layer.
        shapes: The shape of each value.
        results: The values that the model returned.
        kept: Values that somebody held on to when the forward pass had ended.
        used_outside: The operation that used a parameter or buffer of a layer outside that layer's own call.
        narrowed_by: An operation with a result narrower than float64, if there was one.
    """

    def __init__(self) -> None:
        self.makers: dict[Value, Step] = {}
        self.users: dict[Value, list[Step]] = defaultdict(list)
        self.calls: dict[str, list[Step]] = defaultdict(list)
        self.shapes: dict[Value, torch.Size] = {}
        self.results: set[Value] = set()
        self.kept: set[Value] = set()
        self.used_outside: dict[str, str] = {}
        self.narrowed_by: str | None = None

    def add(self, step: Step) -> None:
        """Add a step."""
        for value in dict.fromkeys(step.inputs):
            self.users[value].append(step)
        for value in step.outputs:
            self.makers[value] = step
        if step.is_layer:
            self.calls[step.name].append(step)


def record(layers: Mapping[str, nn.Module], run: Callable[[], Any]) -> tuple[Flow, list[Tensor]]:
    """Run a model, and return its steps and results; what happens inside of the named layers is one step each.

    Args:
        layers: The layers, by their names. They get hooks for as long as this runs.
        run: Runs the model, in float64.
    """
    recorder = _Recorder(layers)
    with recorder.watching(layers), recorder:
        results = list(tensors_in(run()))
        flow = recorder.flow
        flow.results = {recorder.value(tensor) for tensor in results}
    flow.kept = {value for value, tensor in recorder.outputs if tensor() is not None}
    return flow, results


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds each operation, and each call of a layer, to a flow."""

    def __init__(self, layers: Mapping[str, nn.Module]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = Flow()
        self.outputs: list[tuple[Value, weakref.ref[Tensor]]] = []
        self._writes: Counter[int] = Counter()
        self._inside: list[str] = []
        self._owners: dict[int, set[str]] = defaultdict(set)
        for name, layer in layers.items():
            for tensor in (*layer.parameters(), *layer.buffers()):
                self._owners[_memory(tensor)].add(name)
        self._owners.pop(0, None)

    def value(self, tensor: Tensor) -> Value:
        """Return what a tensor holds now."""
        number = getattr(tensor, _NUMBER, None)
        if number is None:
            number = next(_NUMBERS)
            setattr(tensor, _NUMBER, number)
        value = number, self._writes[_memory(tensor)]
        self.flow.shapes[value] = tensor.shape
        return value

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and add it unless it is part of a layer."""
        kwargs = kwargs or {}
        name: str = func.overloadpacket.__name__
        given = list(tensors_in((args, kwargs)))
        self._find_use_outside(name, given)
        inputs = tuple(self.value(tensor) for tensor in given)
        result = func(*args, **kwargs)
        written = list(_written(func, args, kwargs))
        self._writes.update({_memory(tensor) for tensor in written})
        made = list(tensors_in(result))
        if any(_is_narrow(tensor.dtype) for tensor in made):
            self.flow.narrowed_by = self.flow.narrowed_by or (self._inside[-1] if self._inside else name)
        if not self._inside:
            outputs = tuple(dict.fromkeys(self.value(tensor) for tensor in (*made, *written)))
            self.flow.add(Step(name, inputs, outputs, map_tensors(args, lambda tensor: None)))
        return result

    @contextmanager
    def watching(self, layers: Mapping[str, nn.Module]) -> Iterator[None]:
        """Add each call of the layers, for as long as the block lasts."""
        handles = [handle for name, layer in layers.items() for handle in self._watch(name, layer)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _watch(self, name: str, layer: nn.Module) -> Iterator[Any]:
        inputs: list[tuple[Value, ...]] = []

        def enter(module: nn.Module, args: Any, kwargs: Any) -> None:
            inputs.append(tuple(self.value(tensor) for tensor in tensors_in((args, kwargs))))
            self._inside.append(name)

        def leave(module: nn.Module, args: Any, kwargs: Any, result: Any) -> None:
            self._inside.pop()
            made = list(tensors_in(result))
            outputs = tuple(self.value(tensor) for tensor in made)
            step = Step(name, inputs.pop(), outputs, is_layer=True)
            if not self._inside:
                self.flow.add(step)
                self.outputs += zip(outputs, map(weakref.ref, made), strict=True)

        yield layer.register_forward_pre_hook(enter, with_kwargs=True)
        yield layer.register_forward_hook(leave, with_kwargs=True)

    def _find_use_outside(self, operation: str, given: Sequence[Tensor]) -> None:
        for tensor in given:
            for owner in self._owners.get(_memory(tensor), ()):
                if owner not in self._inside:
                    self.flow.used_outside.setdefault(owner, operation)


def _memory(tensor: Tensor) -> int:
    """Return where the memory of a tensor begins; 0 for one that has none of its own."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError):  # sparse tensors
        return 0


def _written(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Iterator[Tensor]:
    """Yield the tensors that an operation writes to."""
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(args[place] if place < len(args) else kwargs.get(argument.name))


def _is_narrow(dtype: torch.dtype) -> bool:
    return (dtype.is_floating_point and dtype is not torch.float64) or dtype is torch.complex64
