"""LeNet with a choice of normalization, and its shape trace."""

import warnings
from collections import OrderedDict
from collections.abc import Mapping
from types import ModuleType
from typing import Final

import torch
from torch import nn

from normkit import layers as ours
from normkit.checking.target.adapter import Adapter
from normkit.train.config import GROUPS, IMAGE_SIZE, IMPLS, require_impl, require_norm
from normkit.train.own import OwnLayer, find

LARGE_POOL: Final = 5
LARGE_POOL_FROM: Final = 64
"""Images of this size or larger get the second pool of the published trace, which then leaves 5 by 5 values or more."""


class LeNet(nn.Sequential):
    """The network.

    Args:
        layers: Its layers by name.
        adapters: What drives those of its normalizations that are somebody's own, by their names.
    """

    def __init__(self, layers: "OrderedDict[str, nn.Module]", adapters: Mapping[str, Adapter] | None = None) -> None:
        super().__init__(layers)
        self.adapters = dict(adapters or {})

    @property
    def norms(self) -> dict[str, nn.Module]:
        """Its normalizations by name."""
        return {name: layer for name, layer in self.named_children() if name.startswith("norm")}


def namespace(impl: str) -> ModuleType:
    """Return the module of the normalization layers of ``impl``; both modules use the same names."""
    return {"normkit": ours, "torch": nn}[impl]


def build_norm(layers: ModuleType, norm: str, shape: tuple[int, ...]) -> nn.Module | None:
    """Build the normalization of an activation; None where there is none.

    Args:
        layers: The module that has the layers.
        norm: One of ``NORMS``.
        shape: Of one image's activation: (C, H, W) or (C,).
    """
    channels, is_image = shape[0], len(shape) > 1
    match norm:
        case "batch":
            module = layers.BatchNorm2d(channels) if is_image else layers.BatchNorm1d(channels)
        case "layer":
            module = layers.LayerNorm(shape)
        case "group":
            module = layers.GroupNorm(GROUPS, channels)
        case "instance" if is_image:
            # torch's default has no weight and bias; with them the comparison is about the statistics alone.
            module = layers.InstanceNorm2d(channels, affine=True)
        case _:
            # Instance norm averages over a channel's positions; after a linear layer each has one, and x - mean is 0.
            return None
    assert isinstance(module, nn.Module)
    return module


def last_pool(image_size: int) -> int:
    """Return the size and stride of the second average pool."""
    return LARGE_POOL if image_size >= LARGE_POOL_FROM else 2


def places(norm: str, image_size: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of one image's activation at each place of a normalization, by name."""
    size1 = image_size - 4
    size2 = size1 // 2 - 4
    images: dict[str, tuple[int, ...]] = {"norm1": (6, size1, size1), "norm2": (16, size2, size2)}
    features: dict[str, tuple[int, ...]] = {"norm3": (120,), "norm4": (84,)}
    return {"none": {}, "instance": images}.get(norm, images | features)


def lenet(norm: str, impl: str | OwnLayer, seed: int, *, image_size: int = IMAGE_SIZE) -> LeNet:
    """Build LeNet with ``norm`` before each of its four sigmoids.

    Convolutions and linear layers get the same initial weights whatever the norm: the weights Xavier-uniform, as in
    the published training, the biases as torch does. The caller's random state is left alone.

    Args:
        norm: One of ``NORMS``.
        impl: Whose normalization layers: one of ``IMPLS``, or a layer of somebody's own.
        seed: Seed of the initial weights.
        image_size: Height and width of the images: 28 in the published training, 224 in the published trace.
    Shape:
        x: (N, 1, image_size, image_size);  result: (N, 10)
    Raises:
        UserError: there is no such norm or implementation, or the layer cannot be built.
    """
    require_norm(norm)
    if isinstance(impl, str):
        require_impl(impl)
    own = None if isinstance(impl, str) and impl in IMPLS else find(impl) if isinstance(impl, str) else impl
    shapes = places(norm, image_size)
    adapters: dict[str, Adapter] = {}

    def norm_at(name: str) -> nn.Module | None:
        if name not in shapes:
            return None
        if own is None:
            return build_norm(namespace(str(impl)), norm, shapes[name])
        module, adapters[name] = own.build(shapes[name])
        return module

    pool = last_pool(image_size)
    size2 = (image_size - 4) // 2 - 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        named: list[tuple[str, nn.Module | None]] = [
            ("conv1", nn.Conv2d(1, 6, kernel_size=5)),
            ("norm1", norm_at("norm1")),
            ("sigmoid1", nn.Sigmoid()),
            ("pool1", nn.AvgPool2d(kernel_size=2, stride=2)),
            ("conv2", nn.Conv2d(6, 16, kernel_size=5)),
            ("norm2", norm_at("norm2")),
            ("sigmoid2", nn.Sigmoid()),
            ("pool2", nn.AvgPool2d(kernel_size=pool, stride=pool)),
            ("flatten", nn.Flatten()),
            ("linear1", nn.Linear(16 * (size2 // pool) ** 2, 120)),
            ("norm3", norm_at("norm3")),
            ("sigmoid3", nn.Sigmoid()),
            ("linear2", nn.Linear(120, 84)),
            ("norm4", norm_at("norm4")),
            ("sigmoid4", nn.Sigmoid()),
            ("linear3", nn.Linear(84, 10)),
        ]
        layers = OrderedDict((name, module) for name, module in named if module is not None)
        for module in layers.values():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.xavier_uniform_(module.weight)
    return LeNet(layers, adapters)


def trace(norm: str, impl: str | OwnLayer, *, image_size: int = IMAGE_SIZE) -> list[tuple[str, tuple[int, ...]]]:
    """Return each layer's class and output shape for one image.

    The network is in evaluation mode, because a batch of one image has no variance to train batch norm with.
    """
    model = lenet(norm, impl, seed=0, image_size=image_size).eval()
    x = torch.zeros(1, 1, image_size, image_size)
    shapes = []
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of somebody's layer that has one value to take a variance of
        for name, layer in model.named_children():
            x = layer(x)
            shown = model.adapters[name].instance if name in model.adapters else layer
            shapes.append((type(shown).__name__, tuple(x.shape)))
    return shapes
