"""SyncBatchNorm with masks on gloo ranks, against torch.nn on the valid elements of all ranks."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from tests.cases import error
from tests.distributed.ranks import run
from tests.masked import KINDS, Results, draw, ragged_step, randomize, step

SHAPE = (10, 6, 9)  # of all ranks together
SIZES = (6, 4)
FORMS = ("mask", "lengths", "weights", "one rank", "nothing valid on one rank", "act")


def build(form: str) -> nn.Module:
    layer = randomize(normkit.BatchNorm1d(6, eps=3e-3) if form != "act" else normkit.BatchNormAct2d(6, eps=3e-3))
    return normkit.convert_sync_batchnorm(layer.double())


def data(form: str) -> tuple[Tensor, Tensor, Tensor]:
    """x, dy and the mask or weights (N, L) of all ranks together."""
    x, dy, mask = draw(SHAPE)
    if form == "lengths":
        mask = torch.arange(9) < torch.tensor([9, 0, 1, 4, 5, 6, 2, 3, 8, 7])[:, None]
    if form == "one rank":
        mask[SIZES[0] :] = True
    if form == "nothing valid on one rank":
        mask[SIZES[0] :] = False
    padding = ~mask[:, None]
    x, dy = (value.nan_to_num(0.4, 0.3, 0.2).masked_fill(padding, torch.nan) for value in (x, dy))
    return x, dy, mask * (torch.arange(9) % 3 + 1) if form == "weights" else mask


def masked_rank(rank: int, form: str) -> tuple[Results, Tensor]:
    """One step, and a second derivative."""
    x, dy, mask = (value.split(SIZES)[rank] for value in data(form))
    layer: Any = build(form)
    given: dict[str, Any] = {"mask": mask}
    if form == "lengths":
        given = {"lengths": mask.sum(1)}
    if form == "one rank" and rank == 1:
        given = {}
    if form == "act":
        x, dy, given = x[..., None], dy[..., None], {"mask": mask[..., None]}
    found = step(layer, x, dy, **given)
    clean = x.nan_to_num(0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(clean, **given), layer.weight, dy.nan_to_num(0.5), create_graph=True)
    (second,) = torch.autograd.grad(gradient.square().sum(), clean)
    return found, second


def one_value(rank: int) -> str:
    """The error of ranks that have one valid value together."""
    layer: Any = normkit.SyncBatchNorm(6)
    mask = torch.zeros(2, 4)
    mask[0, 0] = 1.0 - rank
    try:
        layer(torch.randn(2, 6, 4), mask=mask)
    except ValueError as error:
        return f"{error}; {int(layer.num_batches_tracked)} batches"
    return "no error"


def refused() -> str:
    """The error of a masked input of other channels than the layer's."""
    layer: Any = normkit.SyncBatchNorm(4)
    try:
        layer(torch.randn(8, 64, 4), lengths=[3] * 8)
    except RuntimeError as error:
        return f"{error}; {int(layer.num_batches_tracked)} batches"
    return "no error"


def half_layer() -> Tensor:
    """What a layer in bfloat16 makes of a masked input."""
    layer: Any = normkit.SyncBatchNorm(6).bfloat16()
    x = torch.arange(48.0).reshape(2, 6, 4).bfloat16().requires_grad_()
    y: Tensor = layer(x, lengths=[4, 2])
    y.sum().backward()
    return y.detach()


def weights_with_gradient() -> str:
    """The error of weights whose gradient is wanted."""
    try:
        normkit.SyncBatchNorm(6)(torch.randn(2, 6, 4), mask=torch.ones(2, 4, requires_grad=True))
    except NotImplementedError as error:
        return str(error)
    return "no error"


def every_form(rank: int) -> dict[str, Any]:
    """What a rank finds, in one process: starting it takes longer than all of its work."""
    found: dict[str, Any] = {form: masked_rank(rank, form) for form in FORMS}
    found |= {"one value": one_value(rank), "gradient": weights_with_gradient()}
    return found | {"refused": refused(), "half layer": half_layer()}


@pytest.fixture(scope="module")
def ranks() -> list[dict[str, Any]]:
    """What two ranks find."""
    return run(every_form, 2)


@pytest.mark.parametrize("form", FORMS)
def test_ranks_together_see_the_valid_elements_of_all(form: str, ranks: list[dict[str, Any]]) -> None:
    both: list[tuple[Results, Tensor]] = [rank[form] for rank in ranks]
    x, dy, mask = data(form)
    expected = ragged_step(KINDS["batch"], x, dy, mask.long())
    if form == "act":
        above = expected.y > 0
        expected = ragged_step(KINDS["batch"], x, torch.where(above, dy, 0.0), mask.long())
        expected.y = expected.y.relu()
    y, dx = (torch.cat([getattr(found, name) for found, _ in both]).reshape(SHAPE) for name in ("y", "dx"))
    assert error(y, expected.y) < 1e-12
    assert error(dx, expected.dx) < 1e-12
    for index, gradient in enumerate(expected.parameters):
        assert error(sum(found.parameters[index] for found, _ in both), gradient) < 1e-12
    for found, _ in both:
        assert error(found.buffers[0], expected.buffers[0]) < 1e-12
        if form != "weights":  # whose unbiased variance is that of weights, not of copies
            assert error(found.buffers[1], expected.buffers[1]) < 1e-12
    if form == "weights":
        whole = randomize(normkit.BatchNorm1d(6, eps=3e-3)).double()
        alone = step(whole, x, dy, mask=mask)
        assert error(both[0][0].buffers[1], alone.buffers[1]) < 1e-12


@pytest.mark.parametrize("form", ["mask", "weights", "one rank"])
def test_second_derivatives_are_those_of_one_process(form: str, ranks: list[dict[str, Any]]) -> None:
    both: list[tuple[Results, Tensor]] = [rank[form] for rank in ranks]
    x, dy, mask = data(form)
    layer: Any = randomize(normkit.BatchNorm1d(6, eps=3e-3)).double()
    clean = x.nan_to_num(0.5).requires_grad_()
    (gradient,) = torch.autograd.grad(layer(clean, mask=mask), layer.weight, dy.nan_to_num(0.5), create_graph=True)
    # each rank squares its own share of the gradient: the derivative of the sum of these squares
    shares = [_share_of_gradient(layer, clean, dy, mask, rank) for rank in range(2)]
    assert error((shares[0] + shares[1]).detach(), gradient.detach()) < 1e-12
    (second,) = torch.autograd.grad(shares[0].square().sum() + shares[1].square().sum(), clean)
    assert error(torch.cat([found for _, found in both]), second) < 1e-11


def _share_of_gradient(layer: Any, x: Tensor, dy: Tensor, mask: Tensor, rank: int) -> Tensor:
    """The part of the gradient of weight that the samples of a rank bring, by all statistics."""
    own = torch.zeros(SHAPE[0], 1, 1, dtype=torch.bool)
    own.split(SIZES)[rank].fill_(True)
    upstream = torch.where(own, dy.nan_to_num(0.5), 0.0)
    (share,) = torch.autograd.grad(layer(x, mask=mask), layer.weight, upstream, create_graph=True)
    return share


def test_one_valid_value_on_all_ranks_is_an_error_on_all(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["one value"].startswith(
            "Expected more than 1 value per channel when training, got 1 on all ranks together"
        )
        assert rank["one value"].endswith("; 0 batches")


def test_other_channels_than_the_layers_are_an_error_before_anything_changes(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "expected weight of shape (64,)" in rank["refused"]
        assert rank["refused"].endswith("; 0 batches")


def test_a_layer_in_bfloat16(ranks: list[dict[str, Any]]) -> None:
    x = torch.arange(48.0).reshape(2, 6, 4)
    expected = normkit.BatchNorm1d(6)(x, lengths=[4, 2])
    for rank in ranks:
        assert error(rank["half layer"].double(), expected.detach()) < 1e-2


def test_gradients_of_weights_are_refused(ranks: list[dict[str, Any]]) -> None:
    assert all("mask.detach()" in rank["gradient"] for rank in ranks)
