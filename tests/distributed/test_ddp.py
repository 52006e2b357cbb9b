"""DistributedDataParallel on two gloo ranks, with every layer: as with its twin in torch.nn, and as in one process."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from tests.distributed.ranks import run
from tests.torch.torch_layers import DTYPE, LAYERS, Layer, assert_same

pytestmark = pytest.mark.slow  # two processes build every layer

RANKS = 2
BATCH = 8
STEPS = 2
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "unused parameters": {"find_unused_parameters": True},
    "own buffers": {"broadcast_buffers": False},
    "bucket views": {"gradient_as_bucket_view": True, "static_graph": True},
}
# Each of these sees one sample at a time, or the batches of all ranks: what one process computes is defined.
WHOLE = [name for name in LAYERS if "BatchNorm" not in name or "Sync" in name]
PER_RANK = [name for name in LAYERS if name not in WHOLE]


class Network(nn.Module):
    """A layer between two others that have parameters, and a second one that is not always used."""

    def __init__(self, row: Layer, ours: bool) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.linspace(0.5, 1.5, row.input()[0].numel(), dtype=DTYPE).view(row.shape[1:]))
        self.norm, self.spare = (row.ours() if ours else row.twin() for _ in range(2))
        self.last = nn.Parameter(torch.linspace(-1.0, 1.0, row.input()[0].numel(), dtype=DTYPE).view(row.shape[1:]))

    def forward(self, x: Tensor, use_spare: bool) -> Tensor:
        """The mean of something that has gradients everywhere."""
        y = self.norm(x * self.first)
        if use_spare:
            y = self.spare(y)
        return (y.sin() * self.last).mean()


def train(model: nn.Module, row: Layer, share: slice, use_spare: bool) -> dict[str, Tensor]:
    """Two steps on a share of the batch: all gradients of the second one, then weights and buffers."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number in range(STEPS):
        optimizer.zero_grad()
        model(row.input(number, BATCH)[share], use_spare).backward()
        optimizer.step()
    network = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    gradients = {f"d{name}": p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}
    return gradients | {name: value.clone() for name, value in network.state_dict().items()}


def on_rank(rank: int) -> dict[tuple[str, str, str], dict[str, Tensor]]:
    """Every layer with every option of DDP and every back end; and torch's twins, except of what torch refuses."""
    found = {}
    share = slice(rank * BATCH // RANKS, (rank + 1) * BATCH // RANKS)
    for name, row in LAYERS.items():
        for option, arguments in OPTIONS.items():
            use_spare = option != "unused parameters"
            for kind in ("auto", "numba", "torch"):
                if kind == "torch" and row.name == "SyncBatchNorm":
                    continue
                model = nn.parallel.DistributedDataParallel(Network(row, kind != "torch"), **arguments)
                with normkit.use_backend("auto" if kind == "torch" else kind):
                    found[name, option, kind] = train(model, row, share, use_spare)
    found["one rank only", "", ""] = spare_on_one_rank(rank)
    return found


def spare_on_one_rank(rank: int) -> dict[str, Tensor]:
    """A layer that the first rank alone uses."""
    row = LAYERS["LayerNorm"]
    model = nn.parallel.DistributedDataParallel(Network(row, True), find_unused_parameters=True)
    model(row.input(0, BATCH)[rank * 4 : rank * 4 + 4], rank == 0).backward()
    return {name: p.grad.clone() for name, p in model.module.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def found() -> list[dict[tuple[str, str, str], dict[str, Tensor]]]:
    """What each rank found."""
    return run(on_rank, RANKS)


Found = list[dict[tuple[str, str, str], dict[str, Tensor]]]


@pytest.mark.parametrize("backend", ["auto", "numba"])
@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", LAYERS)
def test_ddp_equals_torchs_twin_and_one_process(name: str, option: str, backend: str, found: Found) -> None:
    use_spare = option != "unused parameters"
    if name in WHOLE:
        expected: dict[str, Any] = train(Network(LAYERS[name], True), LAYERS[name], slice(None), use_spare)
    for rank in range(RANKS):
        ours = found[rank][name, option, backend]
        assert any("dspare" in key for key in ours) == use_spare or "norm.weight" not in ours
        if (name, option, "torch") in found[rank]:
            assert_same(ours, found[rank][name, option, "torch"])
        if name in WHOLE:
            learned = {key: value for key, value in expected.items() if "running" not in key or "Sync" in name}
            assert_same({key: ours[key] for key in learned}, learned)


@pytest.mark.parametrize("name", LAYERS)
def test_ranks_learn_the_same_weights(name: str, found: Found) -> None:
    for option in OPTIONS:
        first, second = (each[name, option, "numba"] for each in found)
        differ = {key for key in first if not torch.equal(first[key], second[key])}
        # batch and instance norms keep the statistics of their own rank, until the next forward pass
        has_own = name in PER_RANK or "tracked" in name
        assert {key.rpartition(".")[2] for key in differ} <= ({"running_mean", "running_var"} if has_own else set())


def test_a_layer_used_on_one_rank_has_the_mean_of_its_gradients(found: Found) -> None:
    row = LAYERS["LayerNorm"]
    parts = []
    for rank in range(RANKS):
        network = Network(row, True)
        network(row.input(0, BATCH)[rank * 4 : rank * 4 + 4], rank == 0).backward()
        zero = torch.zeros((), dtype=DTYPE)
        parts.append({name: zero if p.grad is None else p.grad for name, p in network.named_parameters()})
    expected = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
    for rank in range(RANKS):
        assert_same(found[rank]["one rank only", "", ""], expected)
