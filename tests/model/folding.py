"""What the tests of fold share: a small network that runs as a test says, and the reasons why norms are left."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from normkit import fold
from tests.model.unchanged import assert_unchanged, record

IMAGES = torch.randn(2, 3, 6, 5, dtype=torch.float64)


class Net(nn.Module):
    """A convolution, a norm and another convolution, run as the test says."""

    def __init__(self, run: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)  # registered before what makes its input
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 3, 1)
        for name, layer in layers.items():
            setattr(self, name, layer)
        self._run = run

    def forward(self, x: Tensor) -> Any:
        return self._run(self, x)


def reasons(model: nn.Module, x: Any = IMAGES, norm_into: str = "previous") -> dict[str, str | None]:
    """Why each norm is left; the model must be what it was if all are."""
    before = record(model)
    folding = fold(model, x, norm_into)
    if not folding.folded:
        assert_unchanged(model, before)
    return {norm.name: norm.reason for norm in folding.norms}


def why_left(run: Callable[[Any, Tensor], Any], norm_into: str = "previous", **layers: nn.Module) -> str | None:
    return reasons(randomized(Net(run, **layers)), norm_into=norm_into)["norm"]


def randomized(model: nn.Module) -> Any:
    """A model in float64 and in evaluation mode with random weights and statistics."""
    torch.manual_seed(0)
    for module in model.modules():
        for name, tensor in (*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)):
            if name == "running_var":
                nn.init.uniform_(tensor, 0.5, 2)
            elif tensor.is_floating_point():
                nn.init.normal_(tensor, 0.3, 0.5)
    return model.double().eval()


def assert_same(model: nn.Module, original: nn.Module, x: Tensor) -> None:
    """Two models give the same in float64."""
    with torch.no_grad():
        expected = original(x)
        torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-12 * float(expected.abs().max()))


def in_float64(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)
