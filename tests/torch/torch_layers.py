"""Every layer, its twin in torch.nn and an input: the rows of the table of features."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import normkit
from tests.cases import knows

DTYPE = torch.float64


class PermutedLayerNorm(nn.LayerNorm):
    """What LayerNorm2d computes, as it is usually written."""

    def forward(self, input: Tensor) -> Tensor:
        """Channels to the end, and back."""
        order = (0, *range(2, input.dim()), 1)
        y = super().forward(input.permute(order))
        return y.permute([order.index(axis) for axis in range(input.dim())])


class NormAct(nn.BatchNorm2d):
    """What BatchNormAct2d computes, as timm arranges it."""

    def __init__(self, channels: int, act_layer: type[nn.Module] = nn.ReLU, **act_kwargs: Any) -> None:
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act_layer(**act_kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Norm, drop, activation."""
        result: Tensor = self.act(self.drop(super().forward(input)))
        return result


class Checkpointed(nn.Module):
    """A layer whose intermediate results are computed again in the backward pass."""

    def __init__(self, layer: nn.Module, options: dict[str, Any]) -> None:
        super().__init__()
        self.layer, self.options = layer, options

    def forward(self, x: Tensor) -> Tensor:
        """The layer's result."""
        return checkpoint(self.layer, x, **self.options)


@dataclass(frozen=True)
class Layer:
    """One row.

    Args:
        name: The class in normkit.
        arguments, options: What it is built with.
        shape: Of its input.
        channels_last: Whether that lies in channels-last memory.
    """

    name: str
    arguments: tuple[Any, ...]
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    channels_last: bool = False

    def ours(self) -> nn.Module:
        """The layer, with weights that are not ones and zeros."""
        return self._filled(getattr(normkit, self.name))

    def twin(self) -> nn.Module:
        """The same of torch.nn."""
        if self.name == "SyncBatchNorm":  # without a process group; torch's asks for a GPU within one
            return self._filled(nn.SyncBatchNorm)
        written = {"LayerNorm2d": PermutedLayerNorm, "BatchNormAct2d": NormAct}
        return self._filled(written.get(self.name) or getattr(nn, self.name))

    def _filled(self, cls: Callable[..., nn.Module]) -> nn.Module:
        layer: Any = cls(*self.arguments, **self.options)
        if self.name.startswith("Lazy"):
            layer(torch.zeros(self.shape))
            layer.reset_running_stats()
        layer = layer.to(DTYPE)
        with torch.no_grad():
            for index, parameter in enumerate(layer.parameters()):
                values = torch.linspace(0.5, 2.0, parameter.numel(), dtype=DTYPE).view(parameter.shape)
                parameter.copy_(values * (-1) ** index)
        return layer

    def input(self, seed: int = 0, batch: int | None = None) -> Tensor:
        """An offset input."""
        shape = (self.shape[0] if batch is None else batch, *self.shape[1:])
        x = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=DTYPE) * 1.5 + 0.5
        if self.channels_last:
            x = x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)
        return x


TRACKED = {"affine": True, "track_running_stats": True}

LAYERS = {
    "BatchNorm1d": Layer("BatchNorm1d", (3,), (4, 3)),
    "BatchNorm1d, length": Layer("BatchNorm1d", (3,), (4, 3, 5), {"momentum": 0.3, "bias": False}),
    "BatchNorm2d": Layer("BatchNorm2d", (3,), (4, 3, 2, 5)),
    "BatchNorm2d, channels last": Layer("BatchNorm2d", (3,), (4, 3, 2, 5), channels_last=True),
    "BatchNorm2d, momentum=None": Layer("BatchNorm2d", (3,), (4, 3, 2, 5), {"momentum": None}),
    "BatchNorm2d, untracked": Layer("BatchNorm2d", (3,), (4, 3, 2, 5), {"track_running_stats": False}),
    "BatchNorm3d": Layer("BatchNorm3d", (3,), (4, 3, 2, 1, 5), {"affine": False}),
    "BatchNormAct2d": Layer("BatchNormAct2d", (3,), (4, 3, 2, 5)),
    "BatchNormAct2d, ReLU6, channels last": Layer(
        "BatchNormAct2d", (3,), (4, 3, 2, 5), {"act_layer": nn.ReLU6}, channels_last=True
    ),
    "BatchNormAct2d, SiLU": Layer("BatchNormAct2d", (3,), (4, 3, 2, 5), {"act_layer": nn.SiLU}),
    "LazyBatchNorm2d": Layer("LazyBatchNorm2d", (), (4, 3, 2, 5)),
    "SyncBatchNorm": Layer("SyncBatchNorm", (3,), (4, 3, 5)),
    "LayerNorm": Layer("LayerNorm", (5,), (4, 3, 5)),
    "LayerNorm, two axes": Layer("LayerNorm", ((3, 5),), (4, 2, 3, 5), {"bias": False}),
    "LayerNorm2d": Layer("LayerNorm2d", (3,), (4, 3, 2, 5)),
    "LayerNorm2d, channels last": Layer("LayerNorm2d", (3,), (4, 3, 2, 5), channels_last=True),
    "RMSNorm": Layer("RMSNorm", (5,), (4, 3, 5), {"eps": 1e-3}),
    "GroupNorm": Layer("GroupNorm", (2, 6), (4, 6, 3)),
    "GroupNorm, channels last": Layer("GroupNorm", (2, 6), (4, 6, 3, 2), channels_last=True),
    "InstanceNorm1d": Layer("InstanceNorm1d", (3,), (4, 3, 5)),
    "InstanceNorm2d, tracked": Layer("InstanceNorm2d", (3,), (4, 3, 2, 5), TRACKED),
    "InstanceNorm3d, channels last": Layer("InstanceNorm3d", (3,), (4, 3, 2, 1, 5), {"affine": True}, True),
}
LAYERS = {name: row for name, row in LAYERS.items() if knows(row.name, row.options)}


def says_export() -> bool:
    """Whether torch says that it exports while it compiles, as 2.10 and 2.11 do."""
    asked = torch.compile(lambda x: (torch.compiler.is_exporting(), x + 1), backend="eager")
    return bool(asked(torch.zeros(1))[0])


def step(layer: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """One forward and backward pass: the result, all gradients, all buffers."""
    x = x.detach().requires_grad_()
    layer.zero_grad()
    y = layer(x)
    (y.sin() * torch.linspace(0.2, 1.1, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
    assert x.grad is not None
    gradients = {name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None}
    return {"y": y.detach(), "dx": x.grad, **gradients, **{name: b.clone() for name, b in layer.named_buffers()}}


def assert_same(found: dict[Any, Tensor], expected: dict[Any, Tensor], *, tolerance: float = 1e-10) -> None:
    """Equal keys, and equal values to rounding."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=_named(name))


def _named(name: Any) -> Callable[[str], str]:
    return lambda text: f"{name}: {text}"
