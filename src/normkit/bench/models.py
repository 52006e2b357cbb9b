"""Small networks to time whole training steps with: the norm layers come from outside, all else is torch.nn's.

``layers.norm_act(channels, act_layer=…)`` is a batch norm and the activation behind it, or none; called with a second
tensor, it adds that in between. The shapes are those of the publications, with less depth or width: a step takes about
0.1 s.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES: Final = 10


class Add(nn.Module):
    """The sum of a block's branch and its shortcut."""

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        """Return the sum."""
        return x + residual


class Residual(nn.Module):
    """join(branch(x), x), or join(branch(x), shortcut(x))."""

    def __init__(self, branch: nn.Module, join: nn.Module, shortcut: nn.Module | None = None) -> None:
        super().__init__()
        self.branch = branch
        self.join = join
        self.shortcut = shortcut or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Join the branch and the shortcut."""
        result: Tensor = self.join(self.branch(x), self.shortcut(x))
        return result


def _conv(
    layers: Any,
    before: int,
    after: int,
    size: int,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = None,
) -> Iterator[nn.Module]:
    yield nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False)
    yield layers.norm_act(after, act_layer=act)


def _head(channels: int) -> Iterator[nn.Module]:
    yield nn.AdaptiveAvgPool2d(1)
    yield nn.Flatten()
    yield nn.Linear(channels, CLASSES)


def mobilenet(layers: Any) -> nn.Module:
    """MobileNetV2-like: inverted residuals, most of whose activations go through a batch norm.

    Reference:
        Sandler et al. 2018, arXiv:1801.04381, Table 2.
    """
    parts = [*_conv(layers, 3, 32, 3, stride=2, act=nn.ReLU6)]
    for before, after, stride, expand in (
        (32, 16, 1, 1), (16, 24, 2, 6), (24, 24, 1, 6), (24, 32, 2, 6), (32, 32, 1, 6), (32, 64, 2, 6),
        (64, 64, 1, 6), (64, 96, 1, 6), (96, 160, 2, 6), (160, 160, 1, 6),
    ):  # fmt: skip
        hidden = before * expand
        branch = [] if expand == 1 else [*_conv(layers, before, hidden, 1, act=nn.ReLU6)]
        branch += _conv(layers, hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6)
        branch += _conv(layers, hidden, after, 1)
        if stride == 1 and before == after:
            *branch, join = branch
            parts.append(Residual(nn.Sequential(*branch), join))
        else:
            parts.append(nn.Sequential(*branch))
    return nn.Sequential(*parts, *_conv(layers, 160, 640, 1, act=nn.ReLU6), *_head(640))


def resnet(layers: Any) -> nn.Module:
    """ResNet-like: pairs of 3×3 convolutions with batch norm, and shortcuts.

    Reference:
        He et al. 2015, arXiv:1512.03385, Figure 5 (left).
    """
    parts = [*_conv(layers, 3, 32, 3, act=nn.ReLU)]
    for before, after in ((32, 32), (32, 64), (64, 128), (128, 256)):
        stride = 1 if before == after else 2
        *branch, join = (
            *_conv(layers, before, after, 3, stride, act=nn.ReLU),
            *_conv(layers, after, after, 3, act=nn.ReLU),
        )
        shortcut = None if stride == 1 else nn.Sequential(*_conv(layers, before, after, 1, stride))
        parts.append(Residual(nn.Sequential(*branch), join, shortcut))
    return nn.Sequential(*parts, *_head(256))


def lenet(layers: Any) -> nn.Module:
    """LeNet with a batch norm before every sigmoid.

    Reference:
        LeCun et al. 1998, Gradient-based learning applied to document recognition, Figure 2.
    """
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), layers.BatchNorm2d(6), nn.Sigmoid(), nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5), layers.BatchNorm2d(16), nn.Sigmoid(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(256, 120), layers.BatchNorm1d(120), nn.Sigmoid(),
        nn.Linear(120, 84), layers.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def convnext(layers: Any) -> nn.Module:
    """ConvNeXt-like: depthwise 7×7 convolutions, and LayerNorm over the channels.

    Reference:
        Liu et al. 2022, arXiv:2201.03545, Figure 4.
    """
    widths = (48, 96, 192)
    parts: list[nn.Module] = [nn.Conv2d(3, widths[0], 4, 4), layers.LayerNorm2d(widths[0])]
    for before, after in pairwise((widths[0], *widths)):
        if before != after:
            parts += [layers.LayerNorm2d(before), nn.Conv2d(before, after, 2, 2)]
        for _ in range(2):
            branch = nn.Sequential(
                nn.Conv2d(after, after, 7, padding=3, groups=after), layers.LayerNorm2d(after),
                nn.Conv2d(after, 4 * after, 1), nn.GELU(), nn.Conv2d(4 * after, after, 1),
            )  # fmt: skip
            parts.append(Residual(branch, Add()))
    pool, flatten, linear = _head(widths[-1])
    return nn.Sequential(*parts, pool, flatten, layers.LayerNorm(widths[-1]), linear)


MODELS: Final[dict[str, tuple[Callable[[Any], nn.Module], tuple[int, ...]]]] = {
    "mobilenet": (mobilenet, (16, 3, 128, 128)),
    "resnet": (resnet, (32, 3, 32, 32)),
    "lenet": (lenet, (256, 1, 28, 28)),
    "convnext": (convnext, (16, 3, 128, 128)),
}
"""Each network and the shape of its batch."""


def build(name: str, layers: Any) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a network in training mode, a batch of random images, and their labels."""
    make, shape = MODELS[name]
    model = make(layers).train()
    return model, torch.randn(shape), torch.randint(CLASSES, (shape[0],))


def training_step(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """Return a function that does one step: forward, loss, backward, optimizer."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step
