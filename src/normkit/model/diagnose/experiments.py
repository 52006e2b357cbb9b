"""Experiments with one batch: what moves the running statistics, what runs twice, and which bias is cancelled."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from normkit.model.data import Forward, run_batch
from normkit.model.diagnose.forms import copied_buffers, tensors_of
from normkit.model.diagnose.observe import Seen, Tracked, input_of, look
from normkit.model.norms import RUNNING, running_stats
from normkit.model.preserve import set_mode

_LEAST_DISTANCE = 1e-3
"""Root of the mean square distance of the running statistics from a batch's, from which a momentum can be told."""


def momenta_of(
    model: nn.Module, layers: Sequence[Tracked], batch: Any, forward: Forward | None
) -> dict[str, float | None]:
    """Measure by how much one batch moves the running statistics of each layer: 0 is not at all, 1 is to the batch's.

    A layer whose ``momentum`` is None averages all batches alike and is not measured.
    """
    measured: dict[str, float | None] = {}
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(copied_buffers(layer))
            for hook in _weighers(layer, measured):
                stack.callback(hook.remove)
            set_mode(layer.module, training=True)
        run_batch(model, batch, forward)
    return measured


def _weighers(layer: Tracked, measured: dict[str, float | None]) -> Iterator[Any]:
    before: list[tuple[Tensor, Seen]] = []

    def store(_module: nn.Module, args: Any, kwargs: Any) -> None:
        given = input_of(layer, args, kwargs)
        if given is None or before:
            return
        seen = look(layer, given)
        set_mode(layer.module, training=seen.values > 1)
        before.append((torch.cat(layer.running), seen))

    def compare(*_: Any) -> None:
        if before and layer.name not in measured:
            measured[layer.name] = _weight_of_new(layer, *before[0])

    yield layer.module.register_forward_pre_hook(store, with_kwargs=True)
    yield layer.module.register_forward_hook(compare)


def _weight_of_new(layer: Tracked, old: Tensor, seen: Seen) -> float | None:
    if seen.values < 2 or getattr(layer.module, "momentum", 0.0) is None or not seen.is_finite:
        return None
    new = torch.cat(layer.running)
    target = torch.cat([seen.mean, seen.var * seen.values / (seen.values - 1)])
    unit = torch.cat([(seen.var + layer.eps).sqrt(), seen.var + layer.eps])
    way, moved = (target - old) / unit, (new - old) / unit
    if not (way.isfinite().all() and moved.isfinite().all()) or float(way.square().mean().sqrt()) < _LEAST_DISTANCE:
        return None
    return float((way * moved).sum() / way.square().sum())


def moving_layers(model: nn.Module, layers: Sequence[Tracked], batch: Any, forward: Forward | None) -> set[str]:
    """Name the layers whose running statistics another batch in evaluation changes."""
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(copied_buffers(layer))
        before = {layer.name: torch.cat(layer.running) for layer in layers}
        run_batch(model, batch, forward)
        return {
            layer.name
            for layer in layers
            if not torch.equal(*(values.nan_to_num() for values in (before[layer.name], torch.cat(layer.running))))
        }


def recomputed_layers(model: nn.Module, layers: Sequence[Tracked], batch: Any, forward: Forward | None) -> set[str]:
    """Name the layers that run again during the backward pass, as activation checkpointing makes them, and then store.

    The model runs as in training, on copies of its parameters: hooks that an optimizer has on the gradients of the
    parameters are not called. A model that cannot run so gives none.
    """
    again: set[str] = set()
    backward = False
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(copied_buffers(layer))

            stored = running_stats(layer.module)

            def note(module: nn.Module, _: Any, name: str = layer.name, stored: dict[str, Tensor] = stored) -> None:
                if backward and running_stats(module)[RUNNING[0]] is stored[RUNNING[0]]:  # else it stores elsewhere
                    again.add(name)

            stack.callback(layer.module.register_forward_pre_hook(note).remove)
        stack.callback(model.eval)
        model.train()
        stack.enter_context(_copied_parameters(model))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        try:
            outputs = [y for y in tensors_of(run_batch(model, batch, forward)) if y.requires_grad]
            if outputs:
                backward = True
                torch.autograd.backward([output.sum() for output in outputs])
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
            return set()  # somebody else's model in training: it may want labels, or more than one sample
    return again


def cancelled_biases(
    model: nn.Module, layers: Sequence[Tracked], batch: Any, forward: Forward | None
) -> dict[str, str]:
    """Name, for each layer, the linear or convolutional layer whose result it gets and whose bias it so cancels."""
    made: list[tuple[Any, str]] = []
    found: dict[str, str] = {}
    with ExitStack() as stack:
        for name, module in model.named_modules():
            if getattr(module, "bias", None) is not None and isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                hook = module.register_forward_hook(lambda _m, _x, y, name=name: made.append((y, name)))
                stack.callback(hook.remove)
        for layer in layers:

            def look_back(_module: nn.Module, args: Any, name: str = layer.name) -> None:
                x = args[0] if args else None
                source = getattr(x, "_base", None)
                for result, before in reversed(made):
                    if result is x or (source is not None and result is source):
                        found.setdefault(name, before)

            stack.callback(layer.module.register_forward_pre_hook(look_back).remove)
        run_batch(model, batch, forward)
    return found


@contextmanager
def _copied_parameters(model: nn.Module) -> Iterator[None]:
    """Put copies in the place of all parameters, tied ones tied, until the block ends."""
    copies: dict[int, nn.Parameter] = {}
    held = [(module._parameters, dict(module._parameters)) for module in model.modules()]
    try:
        for slots, parameters in held:
            for name, parameter in parameters.items():
                if parameter is not None:
                    copy = nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad)
                    slots[name] = copies.setdefault(id(parameter), copy)
        yield
    finally:
        for slots, parameters in held:
            slots.update(parameters)
