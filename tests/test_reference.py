"""The reference against torch in float64, finite differences, and the published worked example."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from normkit import reference
from normkit.spec import Norm, ShapeError, view
from tests.cases import Case, draw, error, every_case, to_numpy

PUBLISHED = json.loads((Path(__file__).parent / "data" / "published_batchnorm2d.json").read_text())


@every_case
def test_equals_torch(case: Case) -> None:
    d = draw(case)
    x, weight, bias = (None if t is None else t.requires_grad_() for t in (d.x, d.weight, d.bias))
    y = case.torch(x, weight, bias, d.eps)
    y.backward(d.dy)
    assert x is not None
    assert weight is not None
    forward = reference.normalize(to_numpy(x), case.norm, to_numpy(weight), to_numpy(bias), d.eps)
    backward = reference.gradients(to_numpy(d.dy), to_numpy(x), case.norm, to_numpy(weight), d.eps)
    assert error(forward.y, to_numpy(y)) < 1e-13
    assert error(backward.dx, to_numpy(x.grad)) < 1e-12
    assert error(backward.dweight, to_numpy(weight.grad)) < 1e-12
    if bias is not None:
        assert error(backward.dbias, to_numpy(bias.grad)) < 1e-12


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("subtract_mean", [False, True])
def test_gradient_is_the_slope(given: bool, subtract_mean: bool) -> None:
    rng = np.random.default_rng(3)
    norm = Norm("layer", subtract_mean, normalized_shape=(4,))
    x, weight, dy = rng.normal(1.0, 2.0, (3, 4)), rng.normal(size=4), rng.normal(size=(3, 4))
    statistics = (rng.normal(size=3), rng.uniform(0.5, 2.0, 3)) if given else None

    def loss(x: np.ndarray) -> float:
        return float((reference.normalize(x, norm, weight, None, 0.1, statistics).y * dy).sum())

    h = 1e-6
    slope = np.array([(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in np.eye(12).reshape(12, 3, 4)])
    assert error(reference.gradients(dy, x, norm, weight, 0.1, statistics).dx.ravel(), slope) < 1e-8


def test_published_example_to_its_printed_digits() -> None:
    x = np.array(PUBLISHED["input"])
    batch = reference.normalize(x, Norm("batch"), eps=1e-5)
    assert np.abs(batch.y - np.array(PUBLISHED["per_channel"])).max() < 5.1e-5  # printed with 4 decimals
    whole = reference.normalize(x, Norm("layer", normalized_shape=x.shape), eps=1e-5)
    assert np.abs(whole.y - np.array(PUBLISHED["whole_tensor"])).max() < 5.1e-9  # printed with 8
    assert whole.mean.item() == pytest.approx(PUBLISHED["mean_of_input"], abs=1e-14)
    assert whole.var.item() == pytest.approx(PUBLISHED["var_of_input"], abs=1e-12)
    assert whole.y.var() == pytest.approx(PUBLISHED["var_of_whole_tensor_output"], abs=1e-12)
    assert batch.y.var() == pytest.approx(PUBLISHED["var_of_per_channel_output"], abs=1e-7)


@pytest.mark.parametrize("momentum", [0.1, 0.7, 1.0, None])
def test_running_update_equals_torch(momentum: float | None) -> None:
    layer = torch.nn.BatchNorm1d(3, momentum=momentum).double()
    mean, var = np.zeros(3), np.ones(3)
    for step in range(1, 5):
        x = torch.randn(6, 3, 2, dtype=torch.float64) * step + step
        layer(x)
        batch = reference.normalize(x.numpy(), Norm("batch"))
        mean = reference.update_running(mean, batch.mean[0], momentum, step)
        var = reference.update_running(var, reference.unbiased(batch.var[0], batch.count), momentum, step)
    assert error(mean, to_numpy(layer.running_mean)) < 1e-14
    assert error(var, to_numpy(layer.running_var)) < 1e-14


def test_unbiased_needs_two_values() -> None:
    with pytest.raises(ValueError, match="at least 2 values"):
        reference.unbiased(1.0, 1)


@pytest.mark.parametrize(
    ("norm", "shape", "message"),
    [
        (Norm("batch"), (3,), "at least 2 axes"),
        (Norm("group", num_groups=4), (2, 6, 3), "6 channels and num_groups=4"),
        (Norm("group", num_groups=0), (2, 6, 3), "num_groups=0"),
        (Norm("layer", normalized_shape=(3, 4)), (2, 4, 3), r"expected input with shape \[\*, 3, 4\]"),
        (Norm("layer", normalized_shape=()), (2, 4), "at least one axis"),
    ],
)
def test_wrong_shapes(norm: Norm, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        view(norm, shape)


# (norm, shape, order of the axes in memory): (A, R, K, S)
VIEWS = [
    (Norm("batch"), (2, 3, 5), (0, 1, 2), (1, 2, 3, 5)),
    (Norm("batch"), (2, 3, 5), (0, 2, 1), (1, 10, 3, 1)),
    (Norm("layer", normalized_shape=(5,)), (2, 3, 5), (0, 1, 2), (6, 1, 1, 5)),
    (Norm("channel"), (2, 3, 5), (0, 1, 2), (2, 3, 5, 1)),
    (Norm("channel"), (2, 3, 5), (0, 2, 1), (10, 1, 1, 3)),
    (Norm("group", num_groups=2), (2, 6, 5), (0, 1, 2), (4, 1, 1, 15)),
    (Norm("group", num_groups=2), (2, 6, 5), (0, 2, 1), (2, 5, 2, 3)),
    (Norm("instance"), (2, 3, 5), (0, 1, 2), (6, 1, 1, 5)),
    (Norm("instance"), (2, 3, 5), (0, 2, 1), (2, 5, 3, 1)),
]


@pytest.mark.parametrize(("norm", "shape", "order", "expected"), VIEWS)
def test_views(norm: Norm, shape: tuple[int, ...], order: tuple[int, ...], expected: tuple[int, ...]) -> None:
    v = view(norm, shape, order)
    assert v.shape == expected
    # the place of each weight, by the steps and by broadcasting
    places = np.arange(np.prod(v.affine_sizes)).reshape(v.affine_sizes)
    places = np.broadcast_to(places, v.sizes).reshape(v.shape)
    a, r, k, s = np.indices(v.shape)
    a_period, a_step, r_step, k_step, s_run, s_step = v.affine_steps
    assert (places == a % a_period * a_step + r * r_step + k * k_step + s // s_run * s_step).all()


def test_too_many_alternations() -> None:
    with pytest.raises(ShapeError, match="permute first"):
        view(Norm("batch"), (2, 3, 4, 5), (1, 0, 2, 3)) and view(
            Norm("layer", normalized_shape=(4, 5, 6)), (2, 3, 4, 5, 6), (2, 0, 3, 1, 4)
        )
