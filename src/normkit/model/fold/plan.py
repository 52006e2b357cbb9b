"""What can be folded, and into what; and for every norm that cannot be, why."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normkit.model.classes import PATCHED, is_patched
from normkit.model.fold.affine import Affine, affine_of
from normkit.model.fold.axes import Rule, axis_after, axis_before
from normkit.model.fold.flow import Flow, Step, Value
from normkit.model.fold.layers import Weights, channel_axis, pads_with_zeros, scale_input, scale_output, verify
from normkit.model.norms import NormLayer

__all__ = ["Fold", "Plan", "fold_weights", "plan"]

_HOOKS: Final = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Fold(NamedTuple):
    """A norm that goes into other layers.

    Args:
        norm: Its name.
        into: The names of the layers.
        side: "output": into the layer whose result it normalizes; "input": into those that its result goes to.
        affine: What it multiplies and adds.
    """

    norm: str
    into: tuple[str, ...]
    side: str
    affine: Affine


class Plan(NamedTuple):
    """The folds, in order of execution, and the reason why each other norm is left."""

    folds: tuple[Fold, ...]
    left: Mapping[str, str]


def plan(model: nn.Module, original: nn.Module, norms: list[NormLayer], flow: Flow, norm_into: str) -> Plan:
    """Find out for every norm of a model what it can be folded into.

    Args:
        model: The model, in float64 and in evaluation mode.
        original: The model as it is.
        norms: The norms of the model in float64.
        flow: What the forward pass did.
        norm_into: "previous", "next" or "both".
    """
    order = {name: place for place, name in enumerate(flow.calls)}
    planner = _Planner(model, original, flow, {norm.name for norm in norms}, norm_into)
    left: dict[str, str] = {}
    for norm in sorted(norms, key=lambda norm: order.get(norm.name, len(order))):
        try:
            planner.add(norm)
        except _RefusalError as refusal:
            left[norm.name] = str(refusal)
    return Plan(tuple(planner.folds), left)


def fold_weights(model: nn.Module, folds: tuple[Fold, ...], weights: Mapping[str, Weights]) -> dict[str, Weights]:
    """Return weights, of the layers that folds change, with these folds in them.

    Args:
        model: The model, in float64.
        folds: The folds, in order of execution.
        weights: Weights of layers that were changed already.
    """
    changed = dict(weights)
    for fold in folds:
        for name in fold.into:
            layer = model.get_submodule(name)
            own = Weights(cast("Tensor", layer.weight), cast("Tensor | None", layer.bias))
            change = scale_output if fold.side == "output" else scale_input
            changed[name] = change(layer, changed.get(name, own), fold.affine)
    return changed


class _RefusalError(Exception):
    """Why a norm is left as it is."""


class _Place(NamedTuple):
    """A layer that can take something in, the call of it, and the axis of its channels."""

    name: str
    call: Step
    axis: int


class _Planner:
    """Finds the folds one after the other."""

    def __init__(self, model: nn.Module, original: nn.Module, flow: Flow, norms: set[str], norm_into: str) -> None:
        self.folds: list[Fold] = []
        self._model = model
        self._original = original
        self._flow = flow
        self._norms = norms
        self._norm_into = norm_into
        self._shared = dict(_shared(original))
        self._weights: dict[str, Weights] = {}
        self._tolerance = 1e-6 if flow.narrowed_by else 1e-10

    def add(self, norm: NormLayer) -> None:
        """Add the fold of a norm.

        Raises:
            _RefusalError: it cannot be folded.
        """
        if not norm.name:
            raise _RefusalError("it is the model itself")
        call = self._only_call(norm.name, "it")
        affine = affine_of(norm, self._flow.shapes[call.inputs[0]], self._tolerance)
        if isinstance(affine, str):
            raise _RefusalError(affine)
        if affine.does_nothing and not affine.removes_norm:
            raise _RefusalError("its weight is 1 and its bias 0 already")
        refusals = []
        for into, side, find in (("previous", "output", self._previous), ("next", "input", self._next)):
            if self._norm_into in (into, "both"):
                try:
                    return self._fold(norm.name, side, find(call, affine), affine)
                except _RefusalError as refusal:
                    refusals.append(str(refusal))
        raise _RefusalError("; ".join(refusals))

    def _fold(self, norm: str, side: str, places: list[_Place], affine: Affine) -> None:
        """Verify a fold by running the layers, and add it."""
        for name, call, axis in places:
            layer, shape = self._model.get_submodule(name), self._flow.shapes[call.inputs[0]]
            try:
                error = verify(layer, shape, replace(affine, axis=axis), side=side)
            except Exception as raised:  # somebody else's code
                raise _RefusalError(f"{name} raised {type(raised).__name__} on random input: {raised}") from raised
            if not error <= self._tolerance:
                raise _RefusalError(
                    f"{name} with folded weights gave another result on random input (relative difference {error:.0e})"
                )
        fold = Fold(norm, tuple(place.name for place in places), side, affine)
        weights = fold_weights(self._model, (fold,), self._weights)
        for name in fold.into:
            dtype = cast("Tensor", self._original.get_submodule(name).weight).dtype
            if not all(bool(x.to(dtype).isfinite().all()) for x in weights[name] if x is not None):
                raise _RefusalError(f"the weights of {name} would not be finite in {dtype}")
        self._weights = weights
        self.folds.append(fold)

    def _previous(self, call: Step, affine: Affine) -> list[_Place]:
        """Return the layer that makes what a norm normalizes."""
        if not affine.removes_norm:
            raise _RefusalError(
                "it computes statistics of its input: only its weight and bias can be folded, into the layers behind "
                "it: `norm_into=next`"
            )
        (value,), axis = call.inputs, affine.axis
        while True:
            maker = self._flow.makers.get(value)
            if maker is None:
                raise _RefusalError("its input is an input of the model, or made where this cannot be seen")
            self._require_one_use(maker, value)
            if maker.is_layer and maker.name not in self._norms:
                self._require_layer(maker.name)
                if channel_axis(self._model.get_submodule(maker.name), len(self._flow.shapes[value])) != axis:
                    raise _RefusalError(f"its channels are another axis of the result of {maker.name}")
                return [_Place(maker.name, maker, axis)]
            if maker.is_layer and not any(fold.norm == maker.name and fold.side == "output" for fold in self.folds):
                raise _RefusalError(f"its input is made by {maker.name}, a norm that is left")
            if not maker.is_layer:
                moved = self._moved(axis_before, maker, value, axis)
                if moved is None:
                    raise _RefusalError(self._stands_before(maker))
                axis = moved
            value = maker.inputs[0]

    def _next(self, call: Step, affine: Affine) -> list[_Place]:
        """Return the layers that take the result of a norm, all of them."""
        norm = self._model.get_submodule(call.name)
        if not all(isinstance(norm.get_submodule(name), nn.Identity) for name in affine.activation):
            raise _RefusalError("an activation is part of it, and stands before what follows")
        places: list[_Place] = []
        values = [(call.outputs[0], affine.axis)]
        for value, axis in values:  # grows
            if value in self._flow.results or value in self._flow.kept:
                raise _RefusalError("its result is a result of the model, or kept")
            for user in self._flow.users.get(value, ()):
                if user.is_layer and user.name not in self._norms:
                    places.append(self._place_behind(user, value, axis, affine))
                    continue
                moved = None if user.is_layer else self._moved(axis_after, user, value, axis)
                if moved is None:
                    raise _RefusalError(f"its result goes into {user.name}")
                values.append((user.outputs[0], moved))
        if not places:
            raise _RefusalError("no convolution or linear layer uses its result")
        return places

    def _place_behind(self, user: Step, value: Value, axis: int, affine: Affine) -> _Place:
        self._require_layer(user.name)
        layer = self._model.get_submodule(user.name)
        if channel_axis(layer, len(self._flow.shapes[value])) != axis:
            raise _RefusalError(f"its channels are another axis of the input of {user.name}")
        if affine.has_shift and pads_with_zeros(layer):
            raise _RefusalError(f"{user.name} pads the result with zeros, to which nothing would be added")
        return _Place(user.name, user, axis)

    def _only_call(self, name: str, who: str) -> Step:
        """Return the call of a layer that can be changed; refuse every other one."""
        module = self._model.get_submodule(name)
        calls = self._flow.calls.get(name, [])
        if isinstance(module, torch.jit.ScriptModule):
            raise _RefusalError(f"{who} is TorchScript")
        if any(parametrize.is_parametrized(part) for part in module.modules()):
            raise _RefusalError(f"{who} is parametrized: remove the parametrization first")
        if is_patched(module):
            raise _RefusalError(PATCHED if who == "it" else f"the forward of {who} was replaced on the object")
        if any(getattr(part, hooks) for part in module.modules() for hooks in _HOOKS):
            raise _RefusalError(f"{who} has hooks, which would see other values: remove them first")
        if name in self._flow.used_outside:
            operation = self._flow.used_outside[name]
            raise _RefusalError(f"{operation} uses a parameter or buffer of {who} outside of its call")
        if len(calls) != 1:
            raise _RefusalError(f"{who} is {f'called {len(calls)} times' if calls else 'not called with this example'}")
        (call,) = calls
        if len(call.inputs) != 1 or len(call.outputs) != 1:
            raise _RefusalError(f"{who} takes or returns more than one tensor")
        return call

    def _require_layer(self, name: str) -> None:
        """Refuse a layer whose weights cannot be changed."""
        module = self._model.get_submodule(name)
        if name in self._shared:
            raise _RefusalError(f"{name} shares its weights with {self._shared[name]}")
        self._only_call(name, name)
        if not {"weight", "bias"} <= set(module._parameters) or module._parameters["weight"] is None:
            raise _RefusalError(f"the weight of {name} is no parameter of its own")

    def _require_one_use(self, maker: Step, value: Value) -> None:
        users = [user.name for user in self._flow.users[value]]
        if value in self._flow.results:
            users.append("the caller of the model")
        elif value in self._flow.kept:
            users.append("what keeps it")
        if len(users) != 1:
            raise _RefusalError(f"the result of {maker.name} is used by {' and '.join(users)}")

    def _moved(self, rule: Rule, step: Step, value: Value, axis: int) -> int | None:
        """Return where an axis is on the other side of an operation; None if the operation does more than move it."""
        if len(step.inputs) != 1 or len(step.outputs) != 1:
            return None
        shapes = self._flow.shapes
        return rule(step.name, step.arguments, shapes[step.inputs[0]], shapes[step.outputs[0]], axis)

    def _stands_before(self, maker: Step) -> str:
        before = [self._flow.makers.get(value) for value in maker.inputs]
        layers = [step.name for step in before if step is not None and step.is_layer]
        if len(layers) == 1 and len(before) == 1:
            return f"{maker.name} stands between {layers[0]} and it"
        return f"its input is made by {maker.name}, not by a convolution or a linear layer"


def _shared(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield layers that share memory of a parameter or buffer with another, and that other."""
    owners: dict[int, str] = {}
    for name, module in model.named_modules():
        for tensor in (*module._parameters.values(), *module._buffers.values()):
            if tensor is None or not tensor.numel():
                continue
            other = owners.setdefault(tensor.untyped_storage().data_ptr(), name)
            if other != name:
                yield name, other
                yield other, name
