"""One rank of the benchmark of synchronized batch norm: ``python -m normkit.bench.sync_rank RANK STORE SETTINGS``.

The networks take turns, step by step, so that whatever else the machine does meets all of them alike; the order changes
from round to round. A step is forward, backward with DistributedDataParallel's sum over the ranks, and SGD.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from time import perf_counter
from typing import Final

import torch
from torch import Tensor, distributed, nn

from normkit.bench.environment import describe
from normkit.model import accelerate, convert_sync_batchnorm

WIDTHS: Final = ((3, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64))
CLASSES: Final = 10
WARM_UP_STEPS: Final = 5
TIMEOUT: Final = timedelta(seconds=60)


@dataclass(frozen=True)
class Settings:
    """Size of the experiment.

    Args:
        ranks: Number of processes.
        steps: Timed steps of each network.
        batch: Images on each rank.
        size: Rows and columns of an image.
        threads: Threads of each rank.
    """

    ranks: int = 2
    steps: int = 50
    batch: int = 16
    size: int = 32
    threads: int = 1


def network() -> nn.Module:
    """Build six convolutions, each with a batch norm."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in WIDTHS:
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTHS[-1][1], CLASSES))


def networks() -> dict[str, nn.Module]:
    """Build the same network with three kinds of batch norm."""
    accelerated = network()
    accelerate(accelerated)
    return {
        "torch.nn.BatchNorm2d per rank": network(),
        "normkit.BatchNorm2d per rank": accelerated,
        "normkit.SyncBatchNorm": convert_sync_batchnorm(network()),
    }


class Contender:
    """A network in training on all ranks."""

    def __init__(self, model: nn.Module) -> None:
        self.model = nn.parallel.DistributedDataParallel(model)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step(self, x: Tensor, labels: Tensor) -> float:
        """Do one training step; return its seconds on this rank."""
        distributed.barrier()
        start = perf_counter()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(x), labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return perf_counter() - start


def rounds(settings: Settings) -> Iterator[dict[str, float]]:
    """Yield the seconds of a step of each network on the slowest rank, round by round."""
    contenders = {name: Contender(model) for name, model in networks().items()}
    generator = torch.Generator().manual_seed(distributed.get_rank())
    x = torch.randn(settings.batch, 3, settings.size, settings.size, generator=generator)
    labels = torch.randint(CLASSES, (settings.batch,), generator=generator)
    order = list(contenders)
    for number in range(WARM_UP_STEPS + settings.steps):
        order = order[1:] + order[:1]
        seconds = {name: contenders[name].step(x, labels) for name in order}
        slowest = torch.tensor([seconds[name] for name in contenders], dtype=torch.float64)
        distributed.all_reduce(slowest, op=distributed.ReduceOp.MAX)
        if number >= WARM_UP_STEPS:
            yield dict(zip(contenders, slowest.tolist(), strict=True))


def work(rank: int, store: str, settings: Settings) -> None:
    """Take part in all rounds; the first rank prints the environment, then each round."""
    torch.set_num_threads(settings.threads)
    distributed.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=settings.ranks, timeout=TIMEOUT
    )
    try:
        if rank == 0:
            print(json.dumps({"environment": describe()}), flush=True)
        for found in rounds(settings):
            if rank == 0:
                print(json.dumps({"seconds": found}), flush=True)
    finally:
        distributed.destroy_process_group()


if __name__ == "__main__":
    work(int(sys.argv[1]), sys.argv[2], Settings(**json.loads(sys.argv[3])))
