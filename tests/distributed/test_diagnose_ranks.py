"""diagnose under DistributedDataParallel: what it says of the bare model, on each rank of its own data."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import normkit
from tests.distributed.ranks import run
from tests.model.unchanged import assert_unchanged, record

pytestmark = pytest.mark.slow  # starts two processes


def model() -> Any:
    """The same on every rank; its statistics were never updated."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))


def batches(rank: int) -> list[Tensor]:
    """Three batches, others on each rank."""
    generator = torch.Generator().manual_seed(rank)
    return [2 * torch.randn(16, 3, 4, 4, generator=generator) + 1 for _ in range(3)]


def diagnosed(rank: int) -> dict[str, Any]:
    """The result on a rank, and the model as it was."""
    wrapped = DistributedDataParallel(model())
    before = record(wrapped)
    found = normkit.diagnose(wrapped, batches(rank))
    assert_unchanged(wrapped, before)
    return found.to_dict()


def test_a_wrapped_model_is_diagnosed_as_the_bare_one() -> None:
    for rank, found in enumerate(run(diagnosed, 2)):
        expected = normkit.diagnose(model(), batches(rank)).to_dict()
        assert found["findings"][0]["code"] == expected["findings"][0]["code"] == "never-updated"
        assert [layer["name"] for layer in found["layers"]] == ["1", "4"]
        assert found["gap"] == pytest.approx(expected["gap"], rel=1e-5)
