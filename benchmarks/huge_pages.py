"""A training step of BatchNorm2d in a default process, with huge pages for its large results and without.

python benchmarks/huge_pages.py

Each sample is a process of its own, as what the C library does with freed memory depends on all that came before. The
processes take turns, and print the median and the slowest tenth of their steps; torch.nn's steps run in between.
"""

import argparse
import json
import subprocess
import sys
from statistics import median
from time import perf_counter

import torch
from torch import nn

import normkit
from normkit.backends import huge_pages

SHAPE = (32, 64, 56, 56)
CHOICES = ("with", "without")


def seconds_of_steps(layer: nn.Module, other: nn.Module, rounds: int) -> list[float]:
    """Seconds of forward and backward of a layer, between such steps of the other."""
    x, dy = torch.randn(SHAPE).requires_grad_(), torch.randn(SHAPE)
    seconds = []
    for _ in range(rounds):
        other(x).backward(dy)
        x.grad = None
        for step in range(4):
            start = perf_counter()
            layer(x).backward(dy)
            if step:  # the first meets what the other has left in the caches
                seconds.append(perf_counter() - start)
            x.grad = None
    return seconds


def main() -> None:
    """Measure, or start the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=8, help="of each kind (default: 8)")
    parser.add_argument("--measure", choices=CHOICES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.processes < 1:
        parser.exit(2, f"error: --processes must be 1 or more, not {options.processes}\n")
    if options.measure:
        if options.measure == "without":
            huge_pages._advise = lambda: None
        seconds = sorted(seconds_of_steps(normkit.BatchNorm2d(SHAPE[1]), nn.BatchNorm2d(SHAPE[1]), rounds=15))
        print(json.dumps([median(seconds), seconds[len(seconds) * 9 // 10]]))
        return
    found: dict[str, list[list[float]]] = {choice: [] for choice in CHOICES}
    for _ in range(options.processes):
        for choice, samples in found.items():
            command = [sys.executable, __file__, "--measure", choice]
            samples.append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
    for choice, samples in found.items():
        medians, slowest = zip(*samples, strict=True)
        print(f"{choice} huge pages: {1e3 * median(medians):.1f} ms, slowest tenth {1e3 * median(slowest):.1f} ms")


if __name__ == "__main__":
    main()
