"""Folding into every kind of layer gives the same results as layer and norm one after the other, in float64."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit import fold
from tests.model.folding import assert_same, randomized
from tests.model.unchanged import assert_unchanged, record


def norms_gone(model: nn.Module) -> bool:
    return not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


CONVOLUTIONS = {
    "1d": (nn.Conv1d(4, 6, 3, padding=1), (5, 4, 9)),
    "2d": (nn.Conv2d(4, 6, 3), (2, 4, 7, 6)),
    "2d, stride and dilation": (nn.Conv2d(4, 6, 3, stride=2, dilation=2, padding="valid"), (2, 4, 9, 8)),
    "2d, reflected": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (2, 4, 7, 6)),
    "2d, groups": (nn.Conv2d(4, 6, 3, groups=2, bias=False), (2, 4, 7, 6)),
    "2d, depthwise": (nn.Conv2d(4, 8, 3, groups=4), (2, 4, 7, 6)),
    "3d": (nn.Conv3d(4, 6, 2, groups=2), (2, 4, 4, 3, 5)),
    "linear": (nn.Linear(4, 6), (5, 4)),
    "linear without bias": (nn.Linear(4, 6, bias=False), (5, 4)),
}
TRANSPOSED = {
    "1d": (nn.ConvTranspose1d(4, 6, 3, stride=2, padding=1, output_padding=1), (5, 4, 9)),
    "2d": (nn.ConvTranspose2d(4, 6, 3, bias=False), (2, 4, 7, 6)),
    "2d, groups": (nn.ConvTranspose2d(4, 6, 3, groups=2), (2, 4, 7, 6)),
    "3d": (nn.ConvTranspose3d(4, 6, 2, groups=2, stride=2), (2, 4, 4, 3, 5)),
}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def cases(found: dict[str, Any], prefix: str = "") -> list[Any]:
    return [
        pytest.param(layer, torch.randn(shape, dtype=torch.float64), id=prefix + name)
        for name, (layer, shape) in found.items()
    ]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(("layer", "x"), [*cases(CONVOLUTIONS), *cases(TRANSPOSED, "transposed ")])
def test_a_batch_norm_goes_into_the_layer_before_it(layer: nn.Module, x: Tensor, affine: bool) -> None:
    model = randomized(nn.Sequential(deepcopy(layer), NORMS[x.dim()](8 if layer is DEPTHWISE else 6, affine=affine)))
    original = deepcopy(model)
    folding = fold(model, x)
    assert [(norm.name, norm.into, norm.is_gone) for norm in folding.folded] == [("1", ("0",), True)]
    assert type(model[1]) is nn.Identity
    assert model[0].bias is not None
    assert folding.proof is not None
    assert folding.proof.float64 < 1e-12
    assert_same(model, original, torch.randn_like(x))


DEPTHWISE = CONVOLUTIONS["2d, depthwise"][0]
UNPADDED = {name: case for name, case in CONVOLUTIONS.items() if name != "1d"}


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("layer", "x"), cases(UNPADDED))
def test_a_batch_norm_goes_into_the_layer_behind_it(layer: Any, x: Tensor, bias: bool) -> None:
    layer = deepcopy(layer)
    if not bias:
        layer.register_parameter("bias", None)
    model = randomized(nn.Sequential(NORMS[x.dim()](4), layer))
    original = deepcopy(model)
    folding = fold(model, x, norm_into="next")
    assert [(norm.name, norm.into) for norm in folding.folded] == [("0", ("1",))]
    assert type(model[0]) is nn.Identity
    assert_same(model, original, torch.randn_like(x))


@pytest.mark.parametrize(
    "layer",
    [nn.ConvTranspose2d(4, 6, 1), nn.ConvTranspose2d(4, 6, 1, groups=2, bias=False)],
    ids=["one group", "two groups"],
)
def test_a_transposed_convolution_of_one_place_takes_in_a_norm_before_it(layer: nn.Module) -> None:
    model = randomized(nn.Sequential(nn.BatchNorm2d(4), layer))
    original = deepcopy(model)
    assert fold(model, torch.randn(2, 4, 3, 3, dtype=torch.float64), norm_into="next").folded
    assert_same(model, original, torch.randn(2, 4, 5, 3, dtype=torch.float64))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding=1),
        nn.Conv2d(4, 6, 3, padding="same"),
        nn.Conv2d(4, 6, 1, padding=1),
        nn.ConvTranspose2d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, 1, stride=2),
        nn.ConvTranspose2d(4, 6, 1, output_padding=0, padding=1),
    ],
    ids=str,
)
def test_zero_padding_behind_a_norm_is_refused_unless_nothing_is_added(layer: nn.Module) -> None:
    model = randomized(nn.Sequential(nn.BatchNorm2d(4), layer))
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    before = record(model)
    (left,) = fold(model, x, norm_into="next").left
    assert left.reason == "1 pads the result with zeros, to which nothing would be added"
    assert_unchanged(model, before)
    model[0].running_mean.zero_()
    model[0].bias.data.zero_()
    original = deepcopy(model)
    assert fold(model, x, norm_into="next").folded
    assert_same(model, original, x)


def test_both_sides_go_into_one_layer() -> None:
    model = randomized(nn.Sequential(nn.BatchNorm2d(4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU()))
    original = deepcopy(model)
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    assert [norm.into for norm in fold(model, x, norm_into="both").folded] == [("1",), ("1",)]
    assert norms_gone(model)
    assert_same(model, original, x)


def test_two_norms_in_a_row() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Dropout(), nn.BatchNorm2d(6)))
    original = deepcopy(model)
    assert len(fold(model, torch.randn(2, 4, 5, 6, dtype=torch.float64)).folded) == 2
    assert_same(model, original, torch.randn(2, 4, 5, 6, dtype=torch.float64))


@pytest.mark.parametrize("weight", [0.0, -2.0])
def test_a_weight_of_zero_or_below_and_a_variance_of_zero(weight: float) -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6)))
    with torch.no_grad():
        model[1].weight[:3] = weight
        model[1].running_var[2:5] = 0
    original = deepcopy(model)
    assert fold(model, torch.randn(2, 4, 5, 6, dtype=torch.float64)).folded
    assert_same(model, original, torch.randn(2, 4, 5, 6, dtype=torch.float64))


def test_what_is_not_finite_is_refused() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6, eps=0.0)))
    model[1].running_var[2] = 0
    x = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    before = record(model)
    (left,) = fold(model, x).left
    assert left.reason == "what it multiplies or adds is not finite"
    assert_unchanged(model, before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_once(dtype: torch.dtype) -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))).to(dtype)
    exact = deepcopy(model).double()
    folding = fold(model, torch.randn(2, 4, 5, 6, dtype=dtype))
    scale = exact[1].weight / (exact[1].running_var + exact[1].eps).sqrt()
    weight = (exact[0].weight * scale[:, None, None, None]).to(dtype)
    bias = ((exact[0].bias - exact[1].running_mean) * scale + exact[1].bias).to(dtype)
    assert torch.equal(model[0].weight, weight)
    assert torch.equal(model[0].bias, bias)
    assert folding.proof is not None
    assert folding.proof.dtype == str(dtype).removeprefix("torch.")
    assert folding.proof.float64 < 1e-12 < folding.proof.own < 0.1


def test_weights_that_a_dtype_cannot_hold_are_refused() -> None:
    model = randomized(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))).half()
    model[1].running_var.zero_()
    model[1].weight.data.fill_(3e4)
    (left,) = fold(model, torch.randn(2, 4).half()).left
    assert left.reason == "the weights of 0 would not be finite in torch.float16"


@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (nn.LayerNorm(4), torch.randn(2, 3, 4, dtype=torch.float64)),
        (nn.LayerNorm(4, bias=False), torch.randn(2, 4, dtype=torch.float64)),
        (nn.RMSNorm(4), torch.randn(2, 3, 4, dtype=torch.float64)),
        (normkit.LayerNorm(4), torch.randn(2, 3, 4, dtype=torch.float64)),
        (normkit.RMSNorm(4), torch.randn(3, 4, dtype=torch.float64)),
    ],
)
def test_weight_and_bias_of_a_norm_over_the_features_go_into_linear_layers(norm: Any, x: Tensor) -> None:
    model = randomized(nn.Sequential(norm, nn.Linear(4, 6, bias=False)))
    original = deepcopy(model)
    (folded,) = fold(model, x, norm_into="next").folded
    assert (folded.into, folded.is_gone) == (("1",), False)
    assert model[0] is norm
    assert torch.equal(norm.weight, torch.ones(4))
    assert getattr(norm, "bias", None) is None or torch.equal(norm.bias, torch.zeros(4))
    assert_same(model, original, torch.randn_like(x))


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True), normkit.LayerNorm2d(4)], ids=str
)
def test_weight_and_bias_of_a_norm_of_channels_go_into_a_convolution(norm: Any) -> None:
    model = randomized(nn.Sequential(norm, nn.Conv2d(4, 6, 3)))
    original = deepcopy(model)
    assert fold(model, torch.randn(2, 4, 5, 6, dtype=torch.float64), norm_into="both").folded
    assert torch.equal(norm.weight, torch.ones(4))
    assert_same(model, original, torch.randn(3, 4, 5, 6, dtype=torch.float64))


@pytest.mark.parametrize("norm", [nn.InstanceNorm2d(6, affine=True, track_running_stats=True), nn.SyncBatchNorm(6)])
def test_other_norms_with_running_statistics_are_taken_in_too(norm: nn.Module) -> None:
    model = randomized(nn.Sequential(nn.Conv2d(4, 6, 3), norm))
    original = deepcopy(model)
    assert fold(model, torch.randn(2, 4, 5, 6, dtype=torch.float64)).folded
    assert_same(model, original, torch.randn(2, 4, 5, 6, dtype=torch.float64))
