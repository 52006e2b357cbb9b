"""Time of a training step on gloo ranks: DDP with a BatchNorm per rank, against DDP with SyncBatchNorm.

torchrun --nproc-per-node 2 benchmarks/sync_overhead.py
"""

from statistics import median
from time import perf_counter

import torch
from torch import Tensor, distributed, nn

import normkit


def network() -> nn.Module:
    """Six convolutions, each with a batch norm."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in ((3, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def variants() -> dict[str, nn.Module]:
    """The same network with three kinds of batch norm."""
    accelerated = network()
    normkit.accelerate(accelerated)
    return {
        "torch.nn.BatchNorm2d per rank": network(),
        "normkit.BatchNorm2d per rank": accelerated,
        "normkit.SyncBatchNorm": normkit.convert_sync_batchnorm(network()),
    }


def step(model: nn.Module, x: Tensor) -> float:
    """Seconds of one forward and backward pass."""
    distributed.barrier()
    start = perf_counter()
    model(x).square().mean().backward()
    return perf_counter() - start


def main() -> None:
    """Print the median time of a step of each, taken in turns."""
    distributed.init_process_group("gloo")
    torch.set_num_threads(1)
    models = {name: nn.parallel.DistributedDataParallel(model) for name, model in variants().items()}
    x = torch.randn(16, 3, 32, 32)
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(25):
        for name, model in models.items():
            seconds = step(model, x)
            if number >= 5:
                times[name].append(seconds)
    if distributed.get_rank() == 0:
        base = median(next(iter(times.values())))
        for name, values in times.items():
            print(f"{name:<32} {1e3 * median(values):7.1f} ms  {median(values) / base:5.2f}")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
