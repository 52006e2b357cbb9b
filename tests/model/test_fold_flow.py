"""Which norms fold takes in and which it leaves, by what makes their input and what uses their result."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import normkit
from normkit import fold
from tests.model.folding import IMAGES, Net, assert_same, in_float64, randomized, reasons, why_left


def keep(net: Any, x: Tensor) -> Tensor:
    net.kept = net.conv(x)
    return net.norm(net.kept)


def write_to_view(net: Any, x: Tensor) -> Tensor:
    y = net.conv(x)
    y[:, 0].clamp_(min=0)
    return net.norm(y)


BEFORE: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "relu between": (lambda net, x: net.norm(F.relu(net.conv(x))), "relu stands between conv and it"),
    "relu in place": (lambda net, x: net.norm(net.conv(x).relu_()), "relu_ stands between conv and it"),
    "write to a view": (write_to_view, "its input is an input of the model, or made where this cannot be seen"),
    "used by a sum": (lambda net, x: net.norm(y := net.conv(x)) + y, "the result of conv is used by norm and add"),
    "returned": (
        lambda net, x: (net.norm(y := net.conv(x)), y),
        "the result of conv is used by norm and the caller of the model",
    ),
    "kept": (keep, "the result of conv is used by norm and what keeps it"),
    "convolved twice": (lambda net, x: net.norm(net.conv(x)) + net.conv(2 * x), "conv is called 2 times"),
    "normalized twice": (lambda net, x: net.norm(net.norm(net.conv(x))), "it is called 2 times"),
    "two convolutions": (lambda net, x: net.norm(net.conv(x) + net.conv(x)), "add"),
    "not called": (lambda net, x: net.conv(x), "it is not called with this example"),
    "input of the model": (lambda net, x: net.norm(x.new_ones(2, 4, 3, 3)), "its input is made by"),
    "weight used outside": (
        lambda net, x: net.norm(net.conv(x)) * net.conv.weight.mean(),
        "mean uses a parameter or buffer of conv outside of its call",
    ),
    "statistics used outside": (
        lambda net, x: net.norm(net.conv(x)) * net.norm.running_var.mean(),
        "mean uses a parameter or buffer of it outside of its call",
    ),
    "functional": (
        lambda net, x: net.norm(F.conv2d(x, net.conv.weight)),
        "its input is made by convolution, not by a convolution or a linear layer",
    ),
    "padding between": (lambda net, x: net.norm(F.pad(net.conv(x), (1, 1))), "constant_pad_nd stands between conv"),
    "channels mixed up": (lambda net, x: net.norm(net.conv(x).flip(1)), "flip stands between conv and it"),
    "rounded": (lambda net, x: net.norm(net.conv(x).float().double()), "its input is made by _to_copy"),
}


@pytest.mark.parametrize(("run", "expected"), BEFORE.values(), ids=BEFORE)
def test_a_norm_is_left_where_its_input_is_not_the_result_of_a_layer_alone(
    run: Callable[[Any, Tensor], Any], expected: str
) -> None:
    reason = why_left(run)
    assert reason is not None
    assert expected in reason


BEHIND: dict[str, tuple[Callable[[Any, Tensor], Any], str]] = {
    "relu": (lambda net, x: net.head(F.relu(net.norm(x))), "its result goes into relu"),
    "residual": (lambda net, x: net.head(y := net.norm(x)).sum() + y, "its result goes into add"),
    "returned": (lambda net, x: (net.head(y := net.norm(x)), y), "its result is a result of the model, or kept"),
    "padded": (lambda net, x: net.head(F.pad(net.norm(x), (1, 1))), "its result goes into constant_pad_nd"),
    "changed in place": (lambda net, x: net.head(net.norm(x).add_(1)), "its result goes into add_"),
    "unused": (lambda net, x: net.head(x) + 0 * net.norm(x).mean(), "its result goes into mean"),
    "padding": (lambda net, x: net.pad(net.norm(x)), "pad pads the result with zeros"),
    "padding inside": (lambda net, x: net.same(net.norm(x)), "same with folded weights gave another result"),
}


class SamePadding(nn.Conv2d):
    """Pads in its forward pass, where its attributes do not say so."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (1, 1, 1, 1)))


@pytest.mark.parametrize(("run", "expected"), BEHIND.values(), ids=BEHIND)
def test_a_norm_is_left_where_not_all_that_use_it_can_take_it_in(
    run: Callable[[Any, Tensor], Any], expected: str
) -> None:
    net = Net(run, pad=nn.Conv2d(4, 3, 3, padding=1), same=SamePadding(4, 3, 3))
    reason = reasons(randomized(net), torch.randn(2, 4, 5, 5, dtype=torch.float64), "next")["norm"]
    assert reason is not None
    assert expected in reason


def test_what_is_not_flow_of_the_data_does_not_matter() -> None:
    # registered in another order, called by another name, with dropout and a reshape in between
    net = randomized(Net(lambda net, x: net.head(net.norm(F.dropout(net.conv(x), training=False)).relu())))
    net.alias = net.norm
    original = deepcopy(net)
    assert [norm.into for norm in fold(net, IMAGES).folded] == [("conv",)]
    assert type(net.norm) is nn.Identity
    assert net.alias is net.norm
    assert_same(net, original, IMAGES)


class Weighted(nn.Conv2d):
    """Standardizes its weight before it convolves: a scaled weight is the same."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / self.weight.std(), self.bias, padding=1)


def test_a_layer_that_does_something_else_with_its_weight_is_found_by_running_it() -> None:
    reason = why_left(lambda net, x: net.norm(net.conv(x)), conv=Weighted(3, 4, 3))
    assert reason is not None
    assert reason.startswith("conv with folded weights gave another result on random input")


class Picky(nn.Conv2d):
    """Takes the image of the example and no other."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.equal(x, IMAGES):
            raise ValueError("another image")
        return super().forward(x)


def test_a_layer_that_cannot_be_run_on_random_input_is_left() -> None:
    reason = why_left(lambda net, x: net.norm(net.conv(x)), conv=Picky(3, 4, 3))
    assert reason == "conv raised ValueError on random input: another image"


class Moved(nn.Module):
    """Runs a first layer, moves axes and runs a second one."""

    def __init__(self, first: nn.Module, move: Callable[[Tensor], Tensor], second: nn.Module) -> None:
        super().__init__()
        self.first, self.second, self._move = first, second, move

    def forward(self, x: Tensor) -> Any:
        return self.second(self._move(self.first(x)))


FOLLOWED: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor], nn.Module, Tensor, str]] = {
    "linear, transpose, norm": (nn.Linear(3, 4), lambda x: x.mT, nn.BatchNorm1d(4), in_float64(2, 5, 3), "previous"),
    "linear, view, norm": (
        nn.Linear(3, 4), lambda x: x.view(-1, 4), nn.BatchNorm1d(4), in_float64(2, 5, 3), "previous"
    ),
    "convolution, flatten, norm": (
        nn.Conv2d(3, 4, 3), lambda x: x.flatten(2), nn.BatchNorm1d(4), in_float64(2, 3, 5, 5), "previous"
    ),
    "norm, one token, linear": (nn.LayerNorm(3), lambda x: x[:, 0], nn.Linear(3, 2), in_float64(2, 5, 3), "next"),
    "norm, some tokens, linear": (nn.LayerNorm(3), lambda x: x[:, 1:], nn.Linear(3, 2), in_float64(2, 5, 3), "next"),
    "norm, mean, linear": (nn.LayerNorm(3), lambda x: x.mean(1), nn.Linear(3, 2), in_float64(2, 5, 3), "next"),
    "norm, mean of the image, linear": (
        nn.BatchNorm2d(3), lambda x: x.mean((2, 3)), nn.Linear(3, 2), in_float64(2, 3, 5, 4), "next"
    ),
    "norm, pooling, flatten, linear": (
        nn.BatchNorm2d(3), lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1), nn.Linear(3, 2), in_float64(2, 3, 5, 4),
        "next",
    ),
    "norm, channels last, linear": (
        nn.BatchNorm2d(3), lambda x: x.permute(0, 2, 3, 1), nn.Linear(3, 2), in_float64(2, 3, 5, 4), "next"
    ),
    "norm of channels, flatten, linear": (
        normkit.LayerNorm2d(3), lambda x: x.flatten(1), nn.Linear(3, 2), in_float64(2, 3, 1, 1), "next"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("first", "move", "second", "x", "norm_into"), FOLLOWED.values(), ids=FOLLOWED)
def test_channels_are_followed_through_views_slices_and_means(
    first: nn.Module, move: Callable[[Tensor], Tensor], second: nn.Module, x: Tensor, norm_into: str
) -> None:
    model = randomized(Moved(deepcopy(first), move, deepcopy(second)))
    original = deepcopy(model)
    assert fold(model, x, norm_into).folded
    assert_same(model, original, torch.randn_like(x))


NOT_FOLLOWED: dict[str, tuple[nn.Module, Callable[[Tensor], Tensor], nn.Module, Tensor, str, str]] = {
    "the norm is along another axis of as many places": (
        nn.Linear(3, 4), lambda x: x, nn.BatchNorm1d(4), in_float64(2, 4, 3), "previous", "another axis"
    ),
    "a single image, which the norm takes for a batch": (
        nn.Conv1d(3, 4, 1), lambda x: x, nn.BatchNorm1d(4), in_float64(3, 4), "previous", "another axis"
    ),
    "the norm's axis is another one than the layer's": (
        nn.BatchNorm1d(4), lambda x: x, nn.Linear(4, 2), in_float64(2, 4, 4), "next", "another axis"
    ),
    "rows and columns become features": (
        nn.BatchNorm2d(3), lambda x: x.flatten(1), nn.Linear(60, 2), in_float64(2, 3, 5, 4), "next", "goes into view"
    ),
    "the mean is over the channels": (
        nn.LayerNorm(3), lambda x: x.mean(2), nn.Linear(5, 2), in_float64(2, 5, 3), "next", "goes into mean"
    ),
    "some channels": (
        nn.LayerNorm(3), lambda x: x[..., :2], nn.Linear(2, 2), in_float64(2, 5, 3), "next", "goes into slice"
    ),
    "a weight for every place": (
        nn.LayerNorm((5, 3)), lambda x: x, nn.Linear(3, 2), in_float64(2, 5, 3), "next", "each place of several axes"
    ),
    "no weight": (
        nn.LayerNorm(3, elementwise_affine=False), lambda x: x, nn.Linear(3, 2), in_float64(2, 3), "next", "no weight"
    ),
    "statistics of the input": (
        nn.Linear(3, 4), lambda x: x, nn.LayerNorm(4), in_float64(2, 3), "previous", "`norm_into=next`"
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    ("first", "move", "second", "x", "norm_into", "expected"), NOT_FOLLOWED.values(), ids=NOT_FOLLOWED
)
def test_channels_that_end_up_elsewhere_are_refused(
    first: nn.Module, move: Callable[[Tensor], Tensor], second: nn.Module, x: Tensor, norm_into: str, expected: str
) -> None:
    (reason,) = reasons(randomized(Moved(deepcopy(first), move, deepcopy(second))), x, norm_into).values()
    assert reason is not None
    assert expected in reason
