"""recalibrate over ranks: the data of all of them are one data set."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

import normkit
from tests.distributed.ranks import run
from tests.model.unchanged import assert_unchanged, record

pytestmark = pytest.mark.slow  # each starts two or three processes


def data() -> Tensor:
    """Samples that differ from the first to the last."""
    x = torch.randn(31, 3, 4, 4, generator=torch.Generator().manual_seed(5)).double()
    return x + torch.linspace(0, 5, 31).view(-1, 1, 1, 1).double()


def model() -> Any:
    """The same on every rank."""
    torch.manual_seed(0)
    layers = (nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2))
    return nn.Sequential(*layers).double()


def share(rank: int, ranks: int) -> list[Tensor]:
    """Two batches for the first rank, one for the second, none for the third."""
    parts = data().split((10, 4, 17))
    return [list(parts[:2]), [parts[2]], []][rank] if ranks == 3 else [list(parts[:2]), [parts[2]]][rank]


def recalibrated(rank: int, ranks: int, mode: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """State and result on a rank."""
    wrapped = DistributedDataParallel(model())
    found = normkit.recalibrate(wrapped, share(rank, ranks), mode)
    return wrapped.module.state_dict(), found.to_dict()


@pytest.mark.parametrize(("ranks", "mode"), [(2, "pooled"), (3, "sequential")])
def test_all_ranks_get_the_statistics_of_all_data(ranks: int, mode: str) -> None:
    alone = model()
    expected = normkit.recalibrate(alone, list(data().split((10, 4, 17))), mode).to_dict()
    for state, found in run(recalibrated, ranks, ranks, mode):
        torch.testing.assert_close(state, alone.state_dict(), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(
            [layer.pop("mean_moved") for layer in found["layers"]],
            [layer["mean_moved"] for layer in expected["layers"]],
        )
        assert [(layer["values"], layer["inputs"]) for layer in found["layers"]] == [(31 * 16, 3)] * 2


def fails(rank: int) -> tuple[str, bool]:
    """The second rank's data break."""
    net, batches = model(), [data()[:5], data()[:5] if rank == 0 else torch.zeros(5, 7)]
    before = record(net)
    try:
        normkit.recalibrate(net, batches)
    except RuntimeError as error:
        assert_unchanged(net, before)
        return str(error), True
    return "", False


def test_a_rank_that_fails_stops_all() -> None:
    (first, stopped), (_, failed) = run(fails, 2)
    assert stopped
    assert failed
    assert "changed nothing: rank 1 raised" in first


def apart(rank: int) -> tuple[Tensor, Tensor]:
    """One rank alone, and both in a group that is given."""
    one, other = nn.BatchNorm2d(3).double(), nn.BatchNorm2d(3).double()
    if rank == 0:
        normkit.recalibrate(one, [data()[:5]], process_group=False)
    normkit.recalibrate(other, share(rank, 2), process_group=distributed.group.WORLD)
    return one.running_mean, other.running_mean  # type: ignore[return-value]


def test_a_rank_alone_and_a_group() -> None:
    (alone, first), (untouched, second) = run(apart, 2)
    torch.testing.assert_close(alone, data()[:5].mean((0, 2, 3)))
    assert not untouched.any()
    for mean in (first, second):
        torch.testing.assert_close(mean, data().mean((0, 2, 3)))


def synchronized(rank: int) -> dict[str, Tensor]:
    """SyncBatchNorm normalizes by the batches of both ranks, a batch of one sample too."""
    net = normkit.convert_sync_batchnorm(model())
    features = normkit.SyncBatchNorm(3).double()
    normkit.recalibrate(features, [data()[rank : rank + 1, :, 0, 0]])
    normkit.recalibrate(net, data()[:30].chunk(2)[rank].split(5))
    return {**net.state_dict(), "features": features.running_mean}


def test_synchronized_layers_normalize_by_the_batches_of_all_ranks() -> None:
    alone = model()
    parts = [copy.deepcopy(half.split(5)) for half in data()[:30].chunk(2)]
    normkit.recalibrate(alone, [torch.cat(pair) for pair in zip(*parts, strict=True)])
    for state in run(synchronized, 2):
        torch.testing.assert_close(state.pop("features"), data()[:2, :, 0, 0].mean(0))
        for name, value in alone.state_dict().items():
            if "tracked" not in name:  # a rank's batch counts as one
                torch.testing.assert_close(state[name], value, msg=name)
