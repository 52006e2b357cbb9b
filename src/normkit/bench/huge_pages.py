"""A training step of BatchNorm2d in a default process, with huge pages for its large results and without.

Each sample is a process of its own (``python -m normkit.bench.huge_pages with``), because what the C library does with
freed memory depends on all that came before. The processes take turns, and torch.nn's steps run between ours.
"""

import json
import sys
from dataclasses import dataclass, field
from statistics import median
from time import perf_counter
from typing import Any, Final
from unittest.mock import patch

import torch
from torch import nn

from normkit.backends import huge_pages
from normkit.bench.environment import describe
from normkit.bench.process import json_lines
from normkit.bench.progress import Progress
from normkit.bench.section import Section, duration
from normkit.layers import BatchNorm2d

SHAPE: Final = (32, 64, 56, 56)
CHOICES: Final = ("with", "without")
ROUNDS: Final = 15
STEPS_OF_ROUND: Final = 4


@dataclass
class HugePages:
    """Seconds of a step with huge pages and without.

    Args:
        processes: Number of processes of each kind.
        samples: By choice, the median and the slowest tenth of the steps of each process.
    """

    processes: int = 8
    samples: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {choice: [] for choice in CHOICES})
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Start the processes, one with huge pages and one without in turn."""
        progress.begin(self.processes * len(CHOICES))
        try:
            for _ in range(self.processes):
                for choice, samples in self.samples.items():
                    with json_lines(["-m", "normkit.bench.huge_pages", choice]) as lines:
                        ((middle, slowest),) = lines
                    samples.append((middle, slowest))
                    progress.step(f"{choice} huge pages: {duration(middle)}")
        finally:
            progress.end()

    def summary(self) -> dict[str, tuple[float, float]]:
        """Return the medians over the processes, by choice."""
        return {
            choice: (median(middle for middle, _ in samples), median(slowest for _, slowest in samples))
            for choice, samples in self.samples.items()
            if samples
        }

    def sections(self) -> list[Section]:
        """Return one table."""
        rows = tuple((choice, *map(duration, seconds)) for choice, seconds in self.summary().items())
        shape = ",".join(map(str, SHAPE))
        counts = " and ".join(f"{len(samples)} {choice}" for choice, samples in self.samples.items())
        note = (
            f"Forward and backward of BatchNorm2d on ({shape}), float32, the allocator as it is: medians over "
            f"processes, {counts}. Where the machine's setting is not madvise, both are the same."
        )
        return [Section("Huge pages", ("huge pages", "median", "slowest tenth"), rows, (note,))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        found = {
            choice: {"median": middle, "slowest_tenth": slowest, "processes": len(self.samples[choice])}
            for choice, (middle, slowest) in self.summary().items()
        }
        return {"environment": self.environment, "huge_pages": found}


def seconds_of_steps(layer: nn.Module, other: nn.Module) -> list[float]:
    """Return the seconds of forward and backward of a layer, each few between such steps of the other."""
    x, dy = torch.randn(SHAPE).requires_grad_(), torch.randn(SHAPE)
    seconds = []
    for _ in range(ROUNDS):
        other(x).backward(dy)
        x.grad = None
        for step in range(STEPS_OF_ROUND):
            start = perf_counter()
            layer(x).backward(dy)
            if step:  # the first meets what the other has left in the caches
                seconds.append(perf_counter() - start)
            x.grad = None
    return seconds


def measure(choice: str) -> tuple[float, float]:
    """Return the median and the slowest tenth of the steps of this process."""
    large = huge_pages.LARGE if choice == "with" else sys.maxsize  # no result is large enough to ask for them
    with patch.object(huge_pages, "LARGE", large):
        seconds = sorted(seconds_of_steps(BatchNorm2d(SHAPE[1]), nn.BatchNorm2d(SHAPE[1])))
    return median(seconds), seconds[len(seconds) * 9 // 10]


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1])))
