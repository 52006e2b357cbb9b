"""Differences between two networks, by the name of the normalization that they are told of.

All are relative to the largest value of a layer: some gradients, as that of a bias before batch norm, are zero but for
rounding, so no value is measured by itself.
"""

import math
from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.checking.target.state import AFFINE, RUNNING
from normkit.train.model import LeNet
from normkit.train.quantities import worst
from normkit.train.states import NormState, read_gradients, read_norm

ByLayer = dict[str, float]

NORM_AFTER: Final = {"conv1": "norm1", "conv2": "norm2", "linear1": "norm3", "linear2": "norm4"}
"""The normalization after a layer with weights: a difference of that layer's gradient is told of it."""


class FirstOutputs:
    """The outputs of a network's normalizations in the first forward pass since it was cleared.

    Args:
        model: The network.
    """

    def __init__(self, model: LeNet) -> None:
        self.by_name: dict[str, Tensor] = {}
        for name, norm in model.norms.items():

            def keep(_: nn.Module, inputs: Any, output: Tensor, name: str = name) -> None:
                self.by_name.setdefault(name, output.detach())

            norm.register_forward_hook(keep)


def output_differences(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> ByLayer:
    """Compare the outputs of all normalizations."""
    return {name: _relative([(output, theirs[name])]) for name, output in ours.items()}


def gradient_differences(ours: LeNet, theirs: LeNet) -> ByLayer:
    """Compare the gradients of all weights and biases."""
    return _by_norm(ours, theirs, read_gradients, lambda parameter: parameter.grad)


def weight_differences(ours: LeNet, theirs: LeNet) -> ByLayer:
    """Compare all weights and biases."""

    def affine(model: LeNet, name: str) -> NormState:
        return {role: value for role, value in read_norm(model, name).items() if role in AFFINE}

    return _by_norm(ours, theirs, affine, lambda parameter: parameter.detach())


def running_differences(ours: LeNet, theirs: LeNet) -> dict[str, ByLayer]:
    """Compare the running statistics, by role."""
    found: dict[str, ByLayer] = {role: {} for role in RUNNING}
    for name in theirs.norms:
        held, wanted = read_norm(ours, name), read_norm(theirs, name)
        for role in RUNNING:
            if role in held and role in wanted:
                found[role][name] = _relative([(held[role], wanted[role])])
    return found


def _by_norm(
    ours: LeNet,
    theirs: LeNet,
    of_norm: Callable[[LeNet, str], NormState],
    of_parameter: Callable[[Tensor], Tensor | None],
) -> ByLayer:
    """Compare something that every weight has, with one scale for each layer."""
    found: ByLayer = {}
    for name, layer in theirs.named_children():
        if name in theirs.norms:
            held, wanted = of_norm(ours, name), of_norm(theirs, name)
            pairs = [(held[role], wanted[role]) for role in wanted if role in held]
        else:
            parameters = zip(ours.get_submodule(name).parameters(), layer.parameters(), strict=True)
            both = [(of_parameter(mine), of_parameter(their)) for mine, their in parameters]
            # Where no gradient arrives, it is zero.
            pairs = [(torch.zeros_like(b) if a is None else a, b) for a, b in both if b is not None]
        if pairs:
            told_of = NORM_AFTER.get(name, name) if NORM_AFTER.get(name) in theirs.norms else name
            found[told_of] = worst([found.get(told_of, 0.0), _relative(pairs)])
    return found


def _relative(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Return the largest difference of all pairs, in units of the largest value on the right."""
    scale = torch.stack([theirs.abs().max() for _, theirs in pairs]).max()
    differences: list[Tensor] = []
    for ours, theirs in pairs:
        if ours.numel() not in (1, theirs.numel()):  # one value for all is held against each
            return math.inf
        differences.append((ours - theirs).abs().max())
    difference = torch.stack(differences).max()
    return float(difference if difference == 0 else difference / scale)
