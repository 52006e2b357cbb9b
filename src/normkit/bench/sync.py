"""The cost of synchronized batch norm: a training step on several ranks of this machine, by the kind of batch norm."""

import json
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from normkit.bench.environment import describe
from normkit.bench.process import json_lines
from normkit.bench.progress import Progress
from normkit.bench.section import Section, duration
from normkit.bench.sync_rank import Settings


@dataclass
class SyncOverhead:
    """Seconds of each step on the slowest rank, by network."""

    settings: Settings = field(default_factory=Settings)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Start the ranks and collect what the first one prints."""
        progress.begin(self.settings.steps)
        try:
            with ExitStack() as stack:
                store = Path(stack.enter_context(TemporaryDirectory(prefix="normkit-bench-"))) / "store"
                settings = json.dumps(asdict(self.settings))
                outputs = [
                    stack.enter_context(json_lines(["-m", "normkit.bench.sync_rank", str(rank), str(store), settings]))
                    for rank in range(self.settings.ranks)
                ]
                for line in outputs[0]:
                    self._take(line, progress)
        finally:
            progress.end()

    def _take(self, line: dict[str, Any], progress: Progress) -> None:
        if "environment" in line:
            self.environment = line["environment"]
            return
        for name, seconds in line["seconds"].items():
            self.seconds.setdefault(name, []).append(seconds)
        progress.step(", ".join(f"{name} {duration(seconds)}" for name, seconds in line["seconds"].items()))

    def rows(self) -> list[dict[str, Any]]:
        """Return the times of each network, and their ratio to those of the first one."""
        medians = {name: median(seconds) for name, seconds in self.seconds.items()}
        return [
            {
                "name": name,
                "median_ms": 1e3 * middle,
                "fastest_ms": 1e3 * min(self.seconds[name]),
                "ratio": middle / next(iter(medians.values())),
            }
            for name, middle in medians.items()
        ]

    def sections(self) -> list[Section]:
        """Return one table."""
        settings = self.settings
        rows = tuple(
            (row["name"], f"{row['median_ms']:.1f} ms", f"{row['fastest_ms']:.1f} ms", f"{row['ratio']:.2f}")
            for row in self.rows()
        )
        image = f"3 × {settings.size} × {settings.size}"
        steps = len(next(iter(self.seconds.values()), []))
        note = (
            f"A training step under DistributedDataParallel on {settings.ranks} gloo ranks of this machine, each with "
            f"{settings.threads} thread{'s' * (settings.threads > 1)} and batches of {settings.batch} × {image}: "
            f"six convolutions with a batch norm each. The time is that of the slowest rank, over {steps} steps."
        )
        return [Section("Synchronized batch norm", ("batch norm", "median", "fastest", "ratio"), rows, (note,))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"environment": self.environment, "settings": asdict(self.settings), "sync": self.rows()}
