"""LeNet with a choice of normalization, and its shape trace."""

from collections import OrderedDict
from types import ModuleType

import torch
from torch import nn

import normkit

GROUPS = 2
"""Groups of the group norm: two divides all of 6, 16, 120 and 84 channels."""


def namespace(impl: str) -> ModuleType:
    """Return the module of the normalization layers of ``impl``; both modules use the same names."""
    return {"normkit": normkit, "torch": nn}[impl]


def conv_norm(layers: ModuleType, norm: str, channels: int, size: int) -> nn.Module | None:
    """Build the normalization of a (N, channels, size, size) activation; None where there is none."""
    match norm:
        case "batch":
            module = layers.BatchNorm2d(channels)
        case "layer":
            module = layers.LayerNorm((channels, size, size))
        case "group":
            module = layers.GroupNorm(GROUPS, channels)
        case "instance":
            # torch's default has no weight and bias; with them the comparison is about the statistics alone.
            module = layers.InstanceNorm2d(channels, affine=True)
        case _:
            return None
    assert isinstance(module, nn.Module)
    return module


def linear_norm(layers: ModuleType, norm: str, features: int) -> nn.Module | None:
    """Build the normalization of a (N, features) activation; None where there is none."""
    match norm:
        case "batch":
            module = layers.BatchNorm1d(features)
        case "layer":
            module = layers.LayerNorm(features)
        case "group":
            module = layers.GroupNorm(GROUPS, features)
        case _:
            # Instance norm averages over a channel's positions, and here each channel has one: x - mean is 0.
            return None
    assert isinstance(module, nn.Module)
    return module


def lenet(norm: str, impl: str, seed: int, *, image_size: int = 28, last_pool: int = 2) -> nn.Sequential:
    """Build LeNet with ``norm`` before each of its four sigmoids.

    Convolutions and linear layers get the same initial weights whatever the norm: the weights Xavier-uniform, as in
    the published training, the biases as torch does. The caller's random state is left alone.

    Args:
        norm: One of ``NORMS``.
        impl: The package of the normalization layers, one of ``IMPLS``.
        seed: Seed of the initial weights.
        image_size: Height and width of the images: 28 to train, 224 in the published trace.
        last_pool: Size and stride of the second average pool: 2 to train, 5 in the published trace.
    Shape:
        x: (N, 1, image_size, image_size);  result: (N, 10)
    """
    size1 = image_size - 4
    size2 = size1 // 2 - 4
    flat = 16 * (size2 // last_pool) ** 2
    layers = namespace(impl)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        named: list[tuple[str, nn.Module | None]] = [
            ("conv1", nn.Conv2d(1, 6, kernel_size=5)),
            ("norm1", conv_norm(layers, norm, 6, size1)),
            ("sigmoid1", nn.Sigmoid()),
            ("pool1", nn.AvgPool2d(kernel_size=2, stride=2)),
            ("conv2", nn.Conv2d(6, 16, kernel_size=5)),
            ("norm2", conv_norm(layers, norm, 16, size2)),
            ("sigmoid2", nn.Sigmoid()),
            ("pool2", nn.AvgPool2d(kernel_size=last_pool, stride=last_pool)),
            ("flatten", nn.Flatten()),
            ("linear1", nn.Linear(flat, 120)),
            ("norm3", linear_norm(layers, norm, 120)),
            ("sigmoid3", nn.Sigmoid()),
            ("linear2", nn.Linear(120, 84)),
            ("norm4", linear_norm(layers, norm, 84)),
            ("sigmoid4", nn.Sigmoid()),
            ("linear3", nn.Linear(84, 10)),
        ]
        model = nn.Sequential(OrderedDict((name, module) for name, module in named if module is not None))
        for module in model:
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
    return model


def trace(norm: str, impl: str, *, image_size: int = 28, last_pool: int = 2) -> list[tuple[str, tuple[int, ...]]]:
    """Return each layer's class and output shape for one image.

    The network is in evaluation mode, because a batch of one image has no variance to train batch norm with.
    """
    model = lenet(norm, impl, seed=0, image_size=image_size, last_pool=last_pool).eval()
    x = torch.zeros(1, 1, image_size, image_size)
    shapes = []
    with torch.no_grad():
        for layer in model:
            x = layer(x)
            shapes.append((type(layer).__name__, tuple(x.shape)))
    return shapes
