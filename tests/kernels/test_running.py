"""Running statistics that a kernel moves are torch's, whatever the batch."""

import pytest
import torch
from torch import nn

import normkit
from normkit.backends import use_backend

SHAPES = [(samples, channels, *sizes) for samples in (1, 2) for channels in (1, 3, 40) for sizes in ((50,), (7, 9))]


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_statistics_are_torchs(shape: tuple[int, ...], channels_last: bool) -> None:
    if channels_last and len(shape) != 4:
        pytest.skip("no such layout")
    kind = {3: "BatchNorm1d", 4: "BatchNorm2d"}[len(shape)]
    ours, theirs = getattr(normkit, kind)(shape[1]), getattr(nn, kind)(shape[1])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 2 + 3
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last)
    with use_backend("numba"):
        for factor in (1.0, 0.5):
            ours(x * factor)
    for factor in (1.0, 0.5):
        theirs(x * factor)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())
