"""What normalizations keep, by role: read from any layer, copied into torch.nn's."""

from typing import Final

import torch
from torch import Tensor

from normkit.checking.target.cells import Slot
from normkit.checking.target.state import AFFINE, ROLES, RUNNING
from normkit.train.model import LeNet

NormState = dict[str, Tensor]
"""Flat float64 copies of weight, bias, running mean and running variance, as far as a layer has them, by role."""

TITLES: Final = {"weight": "weight", "bias": "bias", "running_mean": "running mean", "running_var": "running variance"}


def read_norm(model: LeNet, name: str) -> NormState:
    """Return what one of its normalizations keeps; of somebody's own layer what plays the roles."""
    if name in model.adapters:
        values = model.adapters[name].read(*ROLES)
        return {role: torch.from_numpy(held).flatten() for role, held in values.items()}
    layer = model.get_submodule(name)
    held = {role: getattr(layer, role, None) for role in ROLES}
    return {role: value.detach().double().flatten() for role, value in held.items() if value is not None}


def read_gradients(model: LeNet, name: str) -> NormState:
    """Return the gradients of weight and bias of a normalization; zeros where no gradient arrives at them."""
    if name in model.adapters:
        slots = model.adapters[name].slots()
        held = {role: (slots[role].whole(), slots[role]) for role in AFFINE if role in slots}
        return {role: _gradient(*pair) for role, pair in held.items() if isinstance(pair[0], Tensor)}
    layer = model.get_submodule(name)
    return {
        role: value.grad.double().flatten()
        for role in AFFINE
        if (value := getattr(layer, role, None)) is not None and value.grad is not None
    }


def _gradient(held: Tensor, slot: Slot) -> Tensor:
    found = held.grad if held.is_leaf and held.grad is not None else torch.zeros_like(held)
    return (found if slot.part is None else found[slot.part]).detach().double().flatten()


def read_norms(model: LeNet) -> dict[str, NormState]:
    """Return what all normalizations keep, copied, by name."""
    return {name: {role: value.clone() for role, value in read_norm(model, name).items()} for name in model.norms}


def take_over(twin: LeNet, model: LeNet) -> None:
    """Give torch.nn's layers the weights and running statistics of a model; what it does not have they keep."""
    with torch.no_grad():
        for name, layer in twin.named_children():
            if name not in twin.norms:
                layer.load_state_dict(model.get_submodule(name).state_dict())
                continue
            for role, value in read_norm(model, name).items():
                target = getattr(layer, role, None)
                if isinstance(target, Tensor) and value.numel() in (1, target.numel()):
                    target.copy_(value.expand(target.numel()).view_as(target))


def attached(model: LeNet) -> list[str]:
    """Name the running statistics of somebody's own layers that carry the autograd graph, in words."""
    held = [adapter.slots() for adapter in model.adapters.values()]
    tensors = {role: [slots[role].read() for slots in held if role in slots] for role in RUNNING}
    return [TITLES[role] for role, values in tensors.items() if any(getattr(v, "grad_fn", None) for v in values)]


def lacks_affine(model: LeNet) -> list[str]:
    """Name what no normalization of a model has of weight and bias, in words."""
    held = {role for norm in read_norms(model).values() for role in norm}
    return [TITLES[role] for role in AFFINE if role not in held]


def lost(saved: dict[str, NormState], model: LeNet) -> list[str]:
    """Name what a model does not hold any more of what its normalizations kept, in words.

    Args:
        saved: What ``read_norms`` returned when the model was saved.
        model: The model that was restored from its state dict.
    """
    roles = set()
    for name, norm in saved.items():
        restored = read_norm(model, name)
        for role, value in norm.items():
            there = restored.get(role)
            if (
                there is None
                or there.shape != value.shape
                or not torch.allclose(there, value, rtol=0.0, atol=0.0, equal_nan=True)
            ):
                roles.add(role)
    return [TITLES[role] for role in (*AFFINE, *RUNNING) if role in roles]
