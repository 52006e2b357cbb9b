"""The time of the first step of a process, with and without kernels compiled by an earlier one."""

import os
import tempfile
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from normkit.bench.environment import describe
from normkit.bench.measure import Timing
from normkit.bench.process import json_lines
from normkit.bench.progress import Progress
from normkit.bench.section import Section, duration, reached

COLD_STARTS: Final = 2
WARM_STARTS: Final = 5
TARGETS: Final = {"import normkit": 0.3, "cold": 10.0, "warm": 1.0}
NAMES: Final = {
    "import torch": "import torch",
    "import normkit": "import of a layer of normkit, after import torch",
    "cold": "first BatchNorm2d training step, nothing compiled yet",
    "warm": "first BatchNorm2d training step, kernels on disk",
}

_PROGRAM: Final = """
import json, time
times = [time.perf_counter()]
import torch
times.append(time.perf_counter())
from normkit import BatchNorm2d
times.append(time.perf_counter())
x = torch.randn(32, 64, 56, 56, requires_grad=True)
layer = BatchNorm2d(64)
began = time.perf_counter()
layer(x).backward(torch.ones_like(x))
print(json.dumps([times[1] - times[0], times[2] - times[1], time.perf_counter() - began]))
"""


@dataclass
class Start:
    """Seconds of imports and of first steps, each in a process of its own."""

    samples: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Start processes: each cold one with an empty cache, then warm ones with the last of these caches."""
        progress.begin(COLD_STARTS + WARM_STARTS)
        try:
            for number in range(COLD_STARTS):
                with tempfile.TemporaryDirectory(prefix="normkit-bench-") as cache:
                    self._start("cold", cache, progress)
                    for _ in range(WARM_STARTS if number == COLD_STARTS - 1 else 0):
                        self._start("warm", cache, progress)
        finally:
            progress.end()

    def _start(self, kind: str, cache: str, progress: Progress) -> None:
        with json_lines(["-c", _PROGRAM], {**os.environ, "NUMBA_CACHE_DIR": cache}) as lines:
            ((import_torch, import_normkit, step),) = lines
        if kind == "warm":  # the first import of a session also reads files from disk
            self.samples["import torch"].append(import_torch)
            self.samples["import normkit"].append(import_normkit)
        self.samples[kind].append(step)
        progress.step(f"{kind} start: {duration(step)}")

    def sections(self) -> list[Section]:
        """Return one table."""
        rows = []
        for name, samples in self.samples.items():
            if samples:
                median, target = Timing.of(samples).median, TARGETS.get(name)
                verdict = reached(None if target is None else median <= target)
                spread = f"{duration(min(samples))} … {duration(max(samples))}"
                rows.append((NAMES[name], duration(median), spread, f"{target:g} s" if target else "", verdict))
        columns = ("what", "median", "range", "target", "verdict")
        note = "Each in a process of its own. A step is forward and backward of (32,64,56,56)."
        return [Section("Start", columns, tuple(rows), (note,))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        measured = {name: samples for name, samples in self.samples.items() if samples}
        return {
            "environment": self.environment,
            "start": {
                name: {**asdict(Timing.of(samples)), "target": TARGETS.get(name)} for name, samples in measured.items()
            },
        }
