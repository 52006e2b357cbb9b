"""docs/benchmarks.md: one full run, written by one command."""

from pathlib import Path
from typing import Any, Final

from normkit.bench.accuracy import Accuracy
from normkit.bench.crossover import Crossover
from normkit.bench.environment import section
from normkit.bench.memory import Memory
from normkit.bench.progress import Progress
from normkit.bench.runner import Times
from normkit.bench.section import Benchmark, Section
from normkit.bench.start import Start

INTRODUCTION: Final = """\
# Benchmarks

Written by `normkit bench report docs/benchmarks.md`; run it to get these tables of your own machine.

A normalization reads its input, writes its output and computes next to nothing, so the limit is a copy of the same
bytes: 1 copy forward, 2.5 with backward. Our layers and torch.nn's get the same parameters, the same inputs and the
same number of threads; each makes its outputs afresh, as in training. They are timed in turn, ours, torch.nn's, a
copy, then torch.nn's, ours, a copy, and again, so that a disturbance meets all three, and what a call leaves behind
meets both; the tables show medians. Every sample begins with a call that is not timed, so caches are as warm as the
call itself leaves them. Forward is the forward pass of a training step,
with gradients recorded; evaluation runs without them.
"""

REGIMES: Final = """\
## Two allocators

Where a large output is made afresh, a default process pays for it twice: the C library takes the memory from the
system and gives it back, and every page is faulted in and cleared again. That can cost more than the normalization,
for torch.nn as for us, and it varies from run to run. So every row is measured twice, each time in a process of its
own: as your processes are, and with an allocator that keeps its memory. You get the second by setting three
variables before Python starts (or with an allocator such as jemalloc):

<!-- not run: train.py stands for yours -->
```console
$ MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296 MALLOC_TOP_PAD_=268435456 python train.py
```
"""


class Document:
    """Every benchmark, one after the other."""

    def __init__(self, times: Times) -> None:
        self._times, self._accuracy = times, Accuracy()
        self._begun: list[Benchmark] = []

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the times."""
        return self._times.environment

    def run(self, progress: Progress) -> None:
        """Measure everything."""
        benchmarks: list[Benchmark] = [self._times, self._accuracy, Memory(), Start(), Crossover()]
        for benchmark in benchmarks:
            self._begun.append(benchmark)
            benchmark.run(progress)

    def sections(self) -> list[Section]:
        """Return the results so far."""
        return [table for benchmark in self._begun for table in benchmark.sections()]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        found = {key: value for benchmark in self._begun for key, value in benchmark.to_json().items()}
        return {**found, "environment": self.environment}

    def write(self, path: Path) -> None:
        """Write the results to path, and the pictures to the folder images beside it."""
        images = path.parent / "images"
        images.mkdir(parents=True, exist_ok=True)
        parts = [INTRODUCTION, section(self.environment).to_markdown(), REGIMES]
        for benchmark in self._begun:
            if benchmark is self._times:
                self._times.draw(images / "bench.png")
                parts.append("![Time of each case in copies of its input, ours beside torch.nn's](images/bench.png)\n")
            elif benchmark is self._accuracy:
                self._accuracy.draw(images / "accuracy.png")
                parts.append(
                    "![Error against mean/std, ours, torch.nn's and the one-pass formula's](images/accuracy.png)\n"
                )
            parts += [table.to_markdown() for table in benchmark.sections()]
        path.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
