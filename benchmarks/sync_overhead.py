"""Time of a training step under DistributedDataParallel on gloo ranks, by the kind of batch norm.

torchrun --nproc-per-node 2 benchmarks/sync_overhead.py

The three networks take turns, step by step, so that what else the machine does falls on all of them; the order within a
round changes from round to round. A step is forward, backward with DDP's sum over ranks, and SGD; its time is that of
the slowest rank.
"""

import argparse
import json
import os
import sys
from statistics import median
from time import perf_counter

import torch
from torch import Tensor, distributed, nn

import normkit

WIDTHS = ((3, 32), (32, 32), (32, 64), (64, 64), (64, 64), (64, 64))


def network() -> nn.Module:
    """Six convolutions, each with a batch norm."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for before, after in WIDTHS:
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


class Contender:
    """A network in training on all ranks."""

    def __init__(self, model: nn.Module) -> None:
        self.model = nn.parallel.DistributedDataParallel(model)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        self.seconds: list[float] = []

    def step(self, x: Tensor, labels: Tensor) -> float:
        """Seconds of one training step."""
        distributed.barrier()
        start = perf_counter()
        self.optimizer.zero_grad()
        nn.functional.cross_entropy(self.model(x), labels).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return perf_counter() - start


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each step of each contender, of the slowest rank."""
    contenders = {name: Contender(model) for name, model in variants().items()}
    generator = torch.Generator().manual_seed(distributed.get_rank())
    x = torch.randn(options.batch, 3, options.size, options.size, generator=generator)
    labels = torch.randint(10, (options.batch,), generator=generator)
    order = list(contenders.values())
    for number in range(options.warmup + options.steps):
        order = order[1:] + order[:1]
        for contender in order:
            seconds = contender.step(x, labels)
            if number >= options.warmup:
                contender.seconds.append(seconds)
    times = torch.tensor([contender.seconds for contender in contenders.values()], dtype=torch.float64)
    distributed.all_reduce(times, op=distributed.ReduceOp.MAX)
    return dict(zip(contenders, times.tolist(), strict=True))


def report(times: dict[str, list[float]], options: argparse.Namespace) -> dict[str, object]:
    """Medians, and their ratio to the first contender's."""
    base = median(next(iter(times.values())))
    rows = [
        {
            "name": name,
            "median_ms": 1e3 * median(seconds),
            "fastest_ms": 1e3 * min(seconds),
            "ratio": median(seconds) / base,
        }
        for name, seconds in times.items()
    ]
    settings = {**vars(options), "ranks": distributed.get_world_size(), "cores": os.cpu_count()}
    return {"settings": settings, "torch": torch.__version__, "normkit": normkit.__version__, "rows": rows}


def print_table(found: dict[str, object]) -> None:
    """The rows as text."""
    settings = found["settings"]
    rows = found["rows"]
    assert isinstance(settings, dict)
    assert isinstance(rows, list)
    print(
        f"{settings['ranks']} gloo ranks, {settings['threads']} thread(s) each, {settings['cores']} cores, "
        f"torch {found['torch']}, normkit {found['normkit']}"
    )
    image = f"3 × {settings['size']} × {settings['size']}"
    print(f"batches of {settings['batch']} × {image} a rank, {settings['steps']} steps")
    print(f"\n{'batch norm':<32} {'median ms':>10} {'fastest ms':>11} {'ratio':>6}")
    for row in rows:
        print(f"{row['name']:<32} {row['median_ms']:10.1f} {row['fastest_ms']:11.1f} {row['ratio']:6.2f}")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default, text in (
        ("steps", 50, "steps of each network that count"),
        ("warmup", 5, "steps before them"),
        ("batch", 16, "images on each rank"),
        ("size", 32, "rows and columns of an image"),
        ("threads", 1, "threads of each rank"),
    ):
        parser.add_argument(f"--{name}", type=positive, default=default, metavar="N", help=f"{text} [{default}]")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print the result [text]")
    options = parser.parse_args()
    if "RANK" not in os.environ:
        parser.exit(2, "error: start it with torchrun --nproc-per-node 2 benchmarks/sync_overhead.py\n")
    return options


def positive(text: str) -> int:
    """A whole number above 0."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {text}")
    return number


def main() -> None:
    """Measure, and let the first rank print."""
    options = parse()
    torch.set_num_threads(options.threads)
    distributed.init_process_group("gloo")
    found = report(measure(options), options)
    if distributed.get_rank() == 0:
        if options.format == "json":
            json.dump(found, sys.stdout, indent=2)
            print()
        else:
            print_table(found)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
