"""Which kinds of norms fold takes in, and what on a layer makes it leave one."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

import normkit
from normkit import fold
from tests.model import handmade
from tests.model.folding import IMAGES, Net, assert_same, in_float64, randomized, reasons, why_left


class Attention(nn.Module):
    """A norm, three projections of it, and the logits of a head that may share the embedding's weight."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.norm1, self.norm2 = norm, deepcopy(norm)
        self.q, self.k, self.v = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.head = nn.Linear(4, 7, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        y = self.norm1(x)
        x = x + F.scaled_dot_product_attention(self.q(y), self.k(y), self.v(y))
        return self.head(self.norm2(x))


TOKENS = torch.tensor([[0, 3, 5], [6, 1, 2]])


@pytest.mark.parametrize(
    "norm", [nn.LayerNorm(4), nn.RMSNorm(4), handmade.LlamaRMSNorm(4), handmade.CastLastRMSNorm(4),
             handmade.T5LayerNorm(4), handmade.GemmaRMSNorm(4)], ids=lambda norm: type(norm).__name__
)  # fmt: skip
@pytest.mark.parametrize("accelerated", [False, True])
def test_the_weight_of_a_norm_goes_into_all_projections(norm: nn.Module, accelerated: bool) -> None:
    model = randomized(Attention(deepcopy(norm))).float()
    if accelerated:
        normkit.accelerate(model)
    with torch.no_grad():
        expected = model(TOKENS)
    folding = fold(model, TOKENS, norm_into="next")
    assert [norm.into for norm in folding.folded] == [("q", "k", "v"), ("head",)]
    neutral = 0.0 if isinstance(norm, handmade.GemmaRMSNorm) else 1.0
    assert torch.equal(model.norm1.weight, torch.full((4,), neutral))
    with torch.no_grad():
        torch.testing.assert_close(model(TOKENS), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
    assert [norm.reason for norm in fold(model, TOKENS, norm_into="next").norms] == (
        ["its weight is 1 and its bias 0 already"] * 2
    )


def test_tied_embeddings_are_refused() -> None:
    model = randomized(Attention(nn.LayerNorm(4)))
    model.head.weight = model.embedding.weight
    found = reasons(model, TOKENS, "next")
    assert found == {"norm1": None, "norm2": "head shares its weights with embedding"}
    assert model.head.weight is model.embedding.weight


def test_memory_that_weights_share_is_refused() -> None:
    net = randomized(Net(lambda net, x: net.head(net.norm(net.conv(x)).relu())))
    flat = torch.randn(500, dtype=torch.float64)
    for layer, begin in ((net.conv, 0), (net.head, 200)):
        size = layer.weight.numel()
        layer.weight = nn.Parameter(flat[begin : begin + size].view_as(layer.weight))
    assert reasons(net)["norm"] == "conv shares its weights with head"


@pytest.mark.parametrize("act", [nn.ReLU, nn.SiLU, None])
def test_of_a_norm_with_an_activation_the_activation_stays(act: type[nn.Module] | None) -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x)), norm=normkit.BatchNormAct2d(4, act_layer=act)))
    original = deepcopy(net)
    assert fold(net, IMAGES).folded
    assert type(net.norm) is (act or nn.Identity)
    assert_same(net, original, IMAGES)


def test_an_activation_inside_stands_before_what_follows() -> None:
    net = Net(lambda net, x: net.head(net.norm(x)), norm=normkit.BatchNormAct2d(4))
    found = reasons(randomized(net), in_float64(2, 4, 3, 3), "next")
    assert found == {"norm": "an activation is part of it, and stands before what follows"}


def test_a_residual_as_second_argument_is_refused() -> None:
    reason = why_left(lambda net, x: net.norm(net.conv(x), x[:, :1]), norm=normkit.BatchNormAct2d(4))
    assert reason == "it takes or returns more than one tensor"


class OwnBatchNorm(nn.Module):
    """As people write it; `right` says whether eps is inside the root."""

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int, *, right: bool) -> None:
        super().__init__()
        self.eps, self.right = 1e-3, right
        self.weight = nn.Parameter(torch.ones(1, channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("running_var", torch.ones(1, channels, 1, 1))

    def forward(self, x: Any) -> Any:
        root = (self.running_var + self.eps).sqrt() if self.right else self.running_var.sqrt() + self.eps
        return (x - self.running_mean) / root * self.weight + self.bias


class FrozenBatchNorm2d(nn.Module):
    """As in torchvision: four buffers."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.eps = 1e-5
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.ones(channels))

    def forward(self, x: Any) -> Any:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


@pytest.mark.parametrize("norm", [OwnBatchNorm(4, right=True), FrozenBatchNorm2d(4)])
def test_a_hand_written_norm_is_taken_in_if_it_does_what_its_numbers_say(norm: nn.Module) -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x)), norm=norm))
    original = deepcopy(net)
    assert fold(net, IMAGES).folded
    assert_same(net, original, IMAGES)


def test_a_hand_written_norm_that_does_something_else_is_left() -> None:
    reason = why_left(lambda net, x: net.norm(net.conv(x)), norm=OwnBatchNorm(4, right=False))
    assert reason == "x * scale + shift with its own numbers did not give what it gives on random input"


def test_a_norm_without_running_statistics_is_none_to_take_in() -> None:
    reason = why_left(lambda net, x: net.norm(net.conv(x)), norm=nn.BatchNorm2d(4, track_running_stats=False))
    assert reason is not None
    assert "computes statistics of its input" in reason


def hooked(layer: Any) -> None:
    layer.register_forward_hook(lambda *_: None)


def parametrized(layer: Any) -> None:
    class Doubled(nn.Module):
        def forward(self, weight: Tensor) -> Tensor:
            return 2 * weight

    parametrize.register_parametrization(layer, "weight", Doubled())


def patched(layer: Any) -> None:
    layer.forward = type(layer).forward.__get__(layer)


@pytest.mark.parametrize(
    ("change", "says"),
    [(hooked, "has hooks"), (parametrized, "is parametrized"), (patched, "was replaced")],
)
@pytest.mark.parametrize("name", ["conv", "norm"])
def test_what_others_put_on_a_layer_is_refused(change: Callable[[Any], None], says: str, name: str) -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x))))
    change(getattr(net, name))
    net.eval()
    folding = fold(net, IMAGES)
    (reason,) = [norm.reason for norm in folding.norms]
    assert reason is not None
    assert says in reason
    assert not folding.folded


def test_spectral_norm_is_refused() -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x)), conv=parametrizations.spectral_norm(nn.Conv2d(3, 4, 3))))
    assert "is parametrized" in str(reasons(net)["norm"])


def test_frozen_and_accelerated_norms_are_taken_in() -> None:
    net = randomized(Net(lambda net, x: net.norm(net.conv(x))))
    original = deepcopy(net)
    normkit.accelerate(net)
    normkit.freeze(net)
    assert fold(net, IMAGES).folded
    assert_same(net, original, IMAGES)
