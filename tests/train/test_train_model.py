"""LeNet: the published shapes, one start for all norms, and the layers that each norm puts in."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import normkit
from normkit.errors import UserError
from normkit.train import NORMS, lenet, trace
from tests.train.layers import PLAIN_ATTRIBUTES, TEXTBOOK

# The published trace of a (1, 1, 224, 224) image; its own layer is called BatchNorm for both kinds of input.
PUBLISHED = json.loads((Path(__file__).parent.parent / "data" / "published_lenet.json").read_text())["trace"]


@pytest.mark.parametrize("impl", ["normkit", "torch", TEXTBOOK, PLAIN_ATTRIBUTES])
def test_published_trace(impl: str) -> None:
    shapes = trace("batch", impl, image_size=224)
    renamed = [["BatchNorm" if name.startswith("BatchNorm") else name, list(shape)] for name, shape in shapes]
    assert renamed == PUBLISHED


@pytest.mark.parametrize(("size", "pool", "features"), [(16, 2, 16), (28, 2, 256), (63, 2, 2304), (64, 5, 400)])
def test_the_second_pool_follows_the_size_of_the_images(size: int, pool: int, features: int) -> None:
    model = lenet("batch", "torch", seed=0, image_size=size)
    assert model.get_submodule("pool2").kernel_size == pool
    assert model.get_submodule("linear1").in_features == features
    assert model(torch.rand(2, 1, size, size)).shape == (2, 10)


@pytest.mark.parametrize("impl", ["normkit", "torch"])
@pytest.mark.parametrize(
    ("norm", "names"),
    [
        ("batch", ["BatchNorm2d", "BatchNorm2d", "BatchNorm1d", "BatchNorm1d"]),
        ("layer", ["LayerNorm"] * 4),
        ("group", ["GroupNorm"] * 4),
        ("instance", ["InstanceNorm2d"] * 2),
        ("none", []),
    ],
)
def test_layers_of_each_norm(norm: str, impl: str, names: list[str]) -> None:
    model = lenet(norm, impl, seed=0)
    norms = [module for name, module in model.named_children() if name.startswith("norm")]
    assert [type(module).__name__ for module in norms] == names
    package = "normkit" if impl == "normkit" else "torch"
    assert all(type(module).__module__.startswith(package) for module in norms)
    assert all(getattr(module, "weight", None) is not None for module in norms)
    assert model(torch.rand(2, 1, 28, 28)).shape == (2, 10)


def test_all_norms_start_from_the_same_weights_and_the_seed_decides_them() -> None:
    def weights(norm: str, impl: str = "normkit", seed: int = 3) -> list[torch.Tensor]:
        layers = [layer for layer in lenet(norm, impl, seed) if isinstance(layer, nn.Conv2d | nn.Linear)]
        return [parameter for layer in layers for parameter in layer.parameters()]

    for norm in NORMS:
        for impl in ("normkit", "torch"):
            assert all(map(torch.equal, weights(norm, impl), weights("none")))
    assert not torch.equal(weights("none")[0], weights("none", seed=4)[0])


def test_weights_are_xavier_uniform() -> None:
    weight = lenet("none", "torch", seed=0).get_parameter("linear1.weight")
    bound = (6 / (256 + 120)) ** 0.5
    assert 0.98 * bound < float(weight.detach().abs().max()) <= bound


def test_building_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    lenet("batch", "normkit", seed=1)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("norm", NORMS)
def test_weights_load_from_one_implementation_into_the_other(norm: str) -> None:
    ours, theirs = lenet(norm, "normkit", seed=0), lenet(norm, "torch", seed=1)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(ours.eval()(x), theirs.eval()(x))


def test_the_normkit_namespace_is_the_package() -> None:
    assert isinstance(lenet("batch", "normkit", seed=0).get_submodule("norm1"), normkit.BatchNorm2d)


@pytest.mark.parametrize(
    ("norm", "impl", "says"),
    [
        ("bacth", "normkit", "unknown norm 'bacth': choose from .*; did you mean batch"),
        (None, "normkit", "unknown norm None"),
        ("batch", "nomrkit", "unknown implementation 'nomrkit': .*did you mean normkit"),
        ("none", "trch", "unknown implementation 'trch'"),
    ],
)
def test_a_misspelt_norm_is_no_network_without_one(norm: Any, impl: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        lenet(norm, impl, seed=0)
    with pytest.raises(UserError, match=says):
        trace(norm, impl)
