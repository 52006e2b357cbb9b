"""A block after which a model is what it was before: bit for bit, whatever happened in between."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from normkit.errors import UserError

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class _Saved(NamedTuple):
    """A tensor of a model, and what it was."""

    tensor: Tensor
    value: Tensor
    requires_grad: bool
    grad: Tensor | None
    grad_value: Tensor | None


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Put modes, parameters, buffers, gradients, hooks and random generators back when the block ends or raises.

    Parameters and buffers stay the same objects; what the block wrote into them, or put in their place, is undone.

    Args:
        model: The model.
    Raises:
        UserError: a lazy layer has seen no input: its parameters do not exist yet.
    """
    modules = list(model.modules())
    slots: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in modules:
        slots += [(held, dict(held)) for held in (module._parameters, module._buffers)]
        slots += [(held, dict(held)) for held in (getattr(module, name) for name in _HOOKS)]
    tensors = [*model.parameters(), *model.buffers()]
    if any(is_lazy(tensor) for tensor in tensors):
        raise UserError(f"{type(model).__name__} has lazy layers that have seen no input: run it once first")
    saved = [_save(tensor) for tensor in tensors]
    devices = sorted({tensor.device.index or 0 for tensor in tensors if tensor.device.type == "cuda"})
    with torch.random.fork_rng(devices=devices):
        try:
            with preserved_modes(model):
                yield
        finally:
            for held, entries in slots:
                held.clear()
                held.update(entries)
            _restore(saved)


@contextmanager
def preserved_modes(model: nn.Module) -> Iterator[None]:
    """Put the mode of every module back when the block ends or raises."""
    modes = [(module, stored_mode(module)) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            if type(module).train is not nn.Module.train:
                module.train(training)
        for module, training in modes:
            module.training = training


def stored_mode(module: nn.Module) -> bool:
    """Return the mode that is stored: a frozen layer says that it evaluates, and keeps what train() has asked for."""
    return bool(vars(module).get("training", module.training))


def set_mode(layer: nn.Module, *, training: bool) -> None:
    """Put a layer into a mode, and leave those inside it in theirs.

    It is told by its own train(): a layer of somebody's own may keep more than ``training``.
    """
    inside = [(module, stored_mode(module)) for module in layer.modules() if module is not layer]
    layer.train(training)
    for module, mode in inside:
        module.training = mode


def _save(tensor: Tensor) -> _Saved:
    grad = tensor.grad
    value = tensor.detach().clone(memory_format=torch.preserve_format)
    return _Saved(tensor, value, tensor.requires_grad, grad, None if grad is None else grad.clone())


def _restore(saved: Sequence[_Saved]) -> None:
    with torch.no_grad():
        for tensor, value, requires_grad, grad, grad_value in saved:
            if not _same(tensor, value):
                tensor.copy_(value)
            if tensor.requires_grad != requires_grad:
                tensor.requires_grad_(requires_grad)
            tensor.grad = grad
            if grad is not None and grad_value is not None:
                grad.copy_(grad_value)


def _same(tensor: Tensor, value: Tensor) -> bool:
    """Whether a tensor holds these bits; writing them anyway would count as a change for autograd."""
    return torch.equal(*(one.detach().contiguous().reshape(-1).view(torch.uint8) for one in (tensor, value)))
