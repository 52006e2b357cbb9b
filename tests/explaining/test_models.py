"""The norms of a model, for the shapes that flow through it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.errors import UserError
from normkit.explaining import norms_of
from normkit.explaining.models import norms_of_target


class HandWritten(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class MyNorm(HandWritten):
    pass


class LayerNorm2d(nn.LayerNorm):
    """As torchvision has it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def build() -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(8),
        nn.GroupNorm(2, 8),
        normkit.LayerNorm2d(8),
        LayerNorm2d(8),
        nn.InstanceNorm2d(8),
        nn.RMSNorm((8, 4, 4)),
        MyNorm(),
        nn.Flatten(2),
        nn.LayerNorm(16),
        normkit.BatchNorm1d(8),
    )


def test_each_norm_is_listed_with_what_it_averages() -> None:
    found = norms_of(build(), torch.randn(2, 8, 4, 4))
    listed = [(norm.layer, norm.case.reduced, norm.case.num_sets, norm.case.count) for norm in found.norms if norm.case]
    assert listed == [
        ("BatchNorm2d", ("N", "H", "W"), 8, 32),
        ("GroupNorm", ("C/G", "H", "W"), 4, 64),
        ("LayerNorm2d", ("C",), 32, 8),
        ("LayerNorm2d", ("C",), 32, 8),
        ("InstanceNorm2d", ("H", "W"), 16, 16),
        ("RMSNorm", ("C", "H", "W"), 2, 128),
        ("LayerNorm", ("C",), 16, 16),
        ("BatchNorm1d", ("N", "L"), 8, 32),
    ]
    assert found.unknown == ("MyNorm as '6'",)


def test_calls_are_counted_by_shape() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.unused = nn.LayerNorm(4), nn.LayerNorm(5)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.norm(x)) + self.norm(x[:1])

    found = norms_of(Shared(), torch.randn(3, 4))
    assert [(norm.name, norm.case.shape if norm.case else None, norm.calls) for norm in found.norms] == [
        ("norm", (3, 4), 2),
        ("norm", (1, 4), 1),
        ("unused", None, 0),
    ]


@pytest.mark.parametrize("shape", [(2, 8, 4, 4), (2, 3, 4, 4)])
def test_the_model_is_left_as_it_was(shape: tuple[int, ...]) -> None:
    model = build()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    if shape[1] == 8:
        norms_of(model, torch.randn(shape))
    else:
        with pytest.raises(UserError, match="raised RuntimeError when called with an input of shape"):
            norms_of(model, torch.randn(shape))
    assert [module.training for module in model.modules()] == modes
    assert not any(module._forward_pre_hooks for module in model.modules())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def with_input() -> tuple[nn.Module, Tensor]:
    return nn.Sequential(nn.Embedding(7, 4), nn.LayerNorm(4)), torch.tensor([[1, 2, 3]])


def raises() -> nn.Module:
    raise KeyError("weights")


@pytest.mark.parametrize("target", [build, build(), with_input])
def test_a_target_may_be_a_model_a_function_or_bring_its_input(target: Any) -> None:
    assert norms_of_target(target, (2, 8, 4, 4)).norms


@pytest.mark.parametrize(
    ("target", "shape", "message"),
    [
        (build, None, "give its `shape`"),
        (raises, (1, 2), r"raises\(\) raised KeyError"),
        (lambda: 3, (1, 2), "must return a torch.nn.Module"),
    ],
)
def test_what_makes_no_model_is_refused(target: Any, shape: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        norms_of_target(target, shape)


def test_a_random_input_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    norms_of_target(nn.LayerNorm(4), (2, 4))
    assert torch.equal(torch.get_rng_state(), before)
