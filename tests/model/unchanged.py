"""What a model is, bit for bit, so that a test can say that a tool left it as it was."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Record(NamedTuple):
    """A model at one moment."""

    values: dict[str, Tensor]  # parameters, buffers and gradients
    objects: dict[str, tuple[int, ...]]  # which object each module, parameter, buffer and gradient is
    settings: dict[str, tuple[Any, ...]]  # class, modes, requires_grad, attributes, hooks
    generator: Tensor


def record(model: nn.Module) -> Record:
    """What a model is now."""
    values: dict[str, Tensor] = {}
    objects: dict[str, tuple[int, ...]] = {}
    settings: dict[str, tuple[Any, ...]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        own = vars(module)
        objects[name] = (id(module),)
        hooks = tuple(tuple(own[kind]) for kind in _HOOKS)
        settings[name] = (type(module), module.training, own["training"], sorted(own), hooks)
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    for name, tensor in tensors:
        grad = tensor.grad
        values[name] = tensor.detach().clone()
        objects[name] = (id(tensor), id(grad), tensor.data_ptr())
        settings[f"{name} (tensor)"] = (tensor.requires_grad, tensor.dtype)
        if grad is not None:
            values[f"{name}.grad"] = grad.clone()
    return Record(values, objects, settings, torch.get_rng_state())


def assert_unchanged(model: nn.Module, before: Record) -> None:
    """A model is what it was."""
    now = record(model)
    assert now.settings == before.settings
    assert now.objects == before.objects
    for name, value in before.values.items():
        torch.testing.assert_close(now.values[name], value, rtol=0, atol=0, equal_nan=True, msg=name)
    assert torch.equal(now.generator, before.generator), "the random generator moved"
