"""What is found out about a norm by running copies of it is found out once for all that are alike."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.model.alike import likeness
from normkit.model.norms import norm_layers
from tests.model.handmade import LlamaRMSNorm
from tests.torch.torch_layers import NormAct

runs: list[nn.Module] = []


class CountedNorm(LlamaRMSNorm):
    """One that counts its forward passes, and multiplies by an attribute."""

    def __init__(self, size: int = 6, gain: Any = 1.0) -> None:
        super().__init__(size)
        self.gain = gain

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Normalize."""
        runs.append(self)
        result: Tensor = super().forward(hidden_states)
        return self.gain * result


class CountedAct(NormAct):
    """A batch norm with an activation that counts its forward passes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalize."""
        runs.append(self)
        return super().forward(input)


def look_through(model: nn.Module) -> object:
    return list(norm_layers(model))


def group(model: nn.Module) -> object:
    return normkit.parameter_groups(model, 0.1)


@pytest.mark.parametrize("tool", [normkit.accelerate, look_through, group])
@pytest.mark.parametrize("make", [CountedNorm, lambda: CountedAct(6)], ids=["norm", "norm and activation"])
def test_twenty_that_are_alike_are_run_as_often_as_one(
    make: Callable[[], nn.Module], tool: Callable[[nn.Module], object]
) -> None:
    counts = []
    for number in (1, 20):
        model = nn.ModuleList(make() for _ in range(number))
        for layer in model:
            for tensor in layer.state_dict().values():
                tensor.copy_(torch.rand(tensor.shape) * 9)  # what they have learnt differs
        model[-1].eval().register_forward_hook(lambda *_: None)
        runs.clear()
        tool(model)
        counts.append(len(runs))
    assert counts[0] == counts[1]


def test_twenty_that_are_alike_are_all_swapped() -> None:
    model = nn.ModuleList(CountedNorm() for _ in range(20))
    summary = normkit.accelerate(model)
    assert len(summary.swapped) == 20
    assert "20 × CountedNorm: 0, 1 … 19" in str(summary)


def test_layers_that_compute_something_else_are_found_out_each() -> None:
    odd = CountedNorm()
    odd.gain = torch.tensor(2.0)
    replaced = CountedNorm()
    replaced.variance_epsilon = 1e-1
    gains: list[Any] = [1.0, 2.0, 1.0, 1, True]
    model = nn.ModuleList([*(CountedNorm(gain=gain) for gain in gains), odd, replaced])
    summary = normkit.accelerate(model)
    assert [left.name for left in summary.left] == ["1", "5"]
    assert len(summary.swapped) == 5
    x = torch.randn(3, 6)
    torch.testing.assert_close(model[6](x), x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 0.1))


DIFFERENT: dict[str, Callable[[], nn.Module]] = {
    "itself": lambda: NormAct(6, nn.Hardtanh),
    "an attribute of a part": lambda: NormAct(6, nn.Hardtanh, min_val=-2.0),
    "the class of a part": lambda: NormAct(6, nn.ReLU6),
    "a size": lambda: NormAct(7, nn.Hardtanh),
    "a dtype": lambda: NormAct(6, nn.Hardtanh).double(),
    "the dtype of statistics": lambda: _with(NormAct(6, nn.Hardtanh), running_mean=torch.zeros(6, dtype=torch.float64)),
    "the device": lambda: NormAct(6, nn.Hardtanh).to("meta"),
    "an attribute": lambda: _with(NormAct(6, nn.Hardtanh), eps=1e-3),
    "a sign": lambda: _with(NormAct(6, nn.Hardtanh), eps=-0.0),
    "the other sign": lambda: _with(NormAct(6, nn.Hardtanh), eps=0.0),
    "a type": lambda: _with(NormAct(6, nn.Hardtanh), eps=0),
    "no weight": lambda: _with(NormAct(6, nn.Hardtanh), weight=None),
    "a private attribute": lambda: _with(NormAct(6, nn.Hardtanh), _slope=2),
    "a list": lambda: _with(NormAct(6, nn.Hardtanh), sizes=[1, 2]),
    "another list": lambda: _with(NormAct(6, nn.Hardtanh), sizes=[1, 3]),
    "a function on the object": lambda: _with(NormAct(6, nn.Hardtanh), forward=lambda x: x),
    "a buffer": lambda: _buffered(NormAct(6, nn.Hardtanh)),
    "a subclass": lambda: CountedAct(6, nn.Hardtanh),
    "another part": lambda: _with(NormAct(6, nn.Hardtanh), drop=nn.Dropout(0.5)),
    "parts of parts": lambda: _with(NormAct(6, nn.Hardtanh), drop=nn.Sequential(nn.Identity())),
}


def _with(module: nn.Module, **attributes: Any) -> nn.Module:
    for name, value in attributes.items():
        setattr(module, name, value)
    return module


def _buffered(module: nn.Module) -> nn.Module:
    module.register_buffer("table", torch.zeros(1))
    return module


def test_what_makes_a_difference() -> None:
    modules = [make() for make in DIFFERENT.values()]
    assert len({likeness(module) for module in modules}) == len(DIFFERENT)
    for name in ("itself", "a size", "no weight", "a list"):
        assert likeness(DIFFERENT[name]()) == likeness(modules[list(DIFFERENT).index(name)]), name
    lazy = nn.LazyLinear(3)
    assert likeness(lazy) == likeness(lazy)


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_modules_can_be_asked() -> None:
    scripted = torch.jit.script(nn.Sequential(nn.LayerNorm(3), nn.ReLU()))
    assert len({likeness(module) for module in scripted.modules()}) == 3
