"""Convolutions and linear layers: how they take in a scale and a shift of their result, or of their input."""

from copy import deepcopy
from typing import Final, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from normkit.model.fold.affine import Affine, along, probe, relative_difference

__all__ = [
    "Weights",
    "channel_axis",
    "is_linear",
    "pads_with_zeros",
    "parameter_like",
    "scale_input",
    "scale_output",
    "set_weights",
    "verify",
]

_LINEAR: Final = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


class Weights(NamedTuple):
    """The weight and bias of a layer, in float64; None: it has no bias."""

    weight: Tensor
    bias: Tensor | None


def is_linear(module: nn.Module) -> bool:
    """Tell whether a module is a convolution, a transposed one, or a linear layer."""
    return isinstance(module, _LINEAR)


def channel_axis(module: nn.Module, dims: int) -> int:
    """Return the axis of a layer's channels in its input and in its result, which have as many axes."""
    return dims - 1 - len(module.kernel_size) if isinstance(module, _ConvNd) else dims - 1


def scale_output(module: nn.Module, weights: Weights, affine: Affine) -> Weights:
    """Return the weights with which a layer gives ``scale * result + shift``."""
    weight, bias = weights
    if isinstance(module, _ConvTransposeNd):  # (input channels, channels of a group, *kernel)
        grouped = _grouped(weight, module.groups)
        per_group = affine.scale.reshape(module.groups, 1, -1, *[1] * (weight.dim() - 2))
        weight = (grouped * per_group).flatten(0, 1)
    else:
        weight = weight * along(affine.scale, weight, 0)
    return Weights(weight, affine.shift if bias is None else bias * affine.scale + affine.shift)


def scale_input(module: nn.Module, weights: Weights, affine: Affine) -> Weights:
    """Return the weights with which a layer gives for x what it gave for ``scale * x + shift``."""
    weight, bias = weights
    groups = module.groups if isinstance(module, _ConvNd) else 1
    # (groups, channels of a group, input channels of a group, *kernel)
    grouped = _grouped(weight, groups)
    is_transposed = isinstance(module, _ConvTransposeNd)
    if is_transposed:
        grouped = grouped.transpose(1, 2)
    scale, shift = (values.reshape(groups, 1, -1, *[1] * (weight.dim() - 2)) for values in (affine.scale, affine.shift))
    added = (grouped * shift).flatten(2).sum(2).flatten()
    scaled = grouped * scale
    new = (scaled.transpose(1, 2) if is_transposed else scaled).flatten(0, 1)
    if not affine.has_shift:
        return Weights(new, bias)
    return Weights(new, added if bias is None else bias + added)


def _grouped(weight: Tensor, groups: int) -> Tensor:
    return weight.reshape(groups, -1, *weight.shape[1:])


def pads_with_zeros(module: nn.Module) -> bool:
    """Tell whether some results of a layer see zeros, or fewer of its inputs than others: a shift is not constant."""
    if not isinstance(module, _ConvNd):
        return False
    kernel, stride, padding = module.kernel_size, module.stride, module.padding
    if isinstance(module, _ConvTransposeNd):
        return {*kernel, *stride} != {1} or any(padding)
    if padding == "valid" or module.padding_mode != "zeros":
        return False
    return set(kernel) != {1} if padding == "same" else any(cast("tuple[int, ...]", padding))


def verify(module: nn.Module, shape: torch.Size, affine: Affine, *, side: str) -> float:
    """Return how far a layer with folded weights is from layer and norm, on random input, relative to the largest.

    Args:
        module: The layer, in float64.
        shape: The shape of its input.
        affine: What is folded into it; its axis is that of the layer's channels.
        side: "output" or "input".
    """
    layer = deepcopy(module)
    own = Weights(cast("Tensor", layer.weight), cast("Tensor | None", layer.bias))
    x = probe(shape, module)
    expected = affine.apply(layer(x.clone())) if side == "output" else layer(affine.apply(x))
    change = scale_output if side == "output" else scale_input
    set_weights(layer, change(layer, own, affine))
    return relative_difference(layer(x.clone()), expected)


def set_weights(module: nn.Module, weights: Weights) -> None:
    """Give a layer new parameters, rounded to the dtype of its weight."""
    for name, values in weights._asdict().items():
        if values is not None:
            module.register_parameter(name, parameter_like(cast("Tensor", module.weight), values))


def parameter_like(like: Tensor, values: Tensor) -> nn.Parameter:
    """Return values as a parameter with the dtype, layout and requires_grad of another."""
    new = torch.empty_like(like) if like.shape == values.shape else like.new_empty(values.shape)
    return nn.Parameter(new.detach().copy_(values), requires_grad=like.requires_grad)
