"""Frozen layers on several ranks: they communicate nothing, and DDP trains what is left."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import normkit
from tests.distributed.ranks import run


def alone(rank: int) -> Tensor | None:
    """One rank runs a frozen SyncBatchNorm in training mode; the other never calls it."""
    layer = normkit.SyncBatchNorm(3).train()
    normkit.freeze(layer)
    return layer(torch.full((2, 3), 4.0)).detach() if rank == 0 else None


def test_a_frozen_sync_batch_norm_does_not_wait_for_others() -> None:
    first, other = run(alone, 2, timeout=20.0)
    torch.testing.assert_close(first, torch.full((2, 3), 4.0), rtol=1e-4, atol=0)
    assert other is None


def trained(rank: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The state of a model with a frozen norm before and after three steps of DDP, on different data."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))
    normkit.freeze(model)
    before = copy.deepcopy(model.state_dict())
    parallel = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(parallel.parameters(), lr=0.1)
    torch.manual_seed(rank)
    for _ in range(3):
        parallel.train()
        optimizer.zero_grad()
        parallel(torch.randn(5, 4) + 3).square().sum().backward()
        optimizer.step()
    assert normkit.is_frozen(parallel)
    normkit.unfreeze(parallel)
    assert model[1].training
    return before, model.state_dict()


def test_ddp_trains_all_but_the_frozen_layer() -> None:
    (before, first), (_, second) = run(trained, 2)
    for name, value in first.items():
        torch.testing.assert_close(value, second[name], msg=name)
        assert torch.equal(value, before[name]) == name.startswith("1."), name
