"""The process that times rows: ``python -m normkit.bench.worker``, a job as JSON in, a line of JSON out a row.

A process of its own, because an allocator reads its settings once, when the process starts.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import torch

from normkit.bench import contenders, environment
from normkit.bench.cases import ROW_BY_NAME, Row
from normkit.bench.measure import Effort, interleaved
from normkit.bench.results import Result


@dataclass(frozen=True)
class Job:
    """What to time, and how."""

    rows: tuple[Row, ...]
    regime: str
    effort: Effort
    threads: int | None = None
    compiled: bool = False

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types; rows by their names."""
        return {
            "rows": [row.name for row in self.rows],
            "regime": self.regime,
            "effort": asdict(self.effort),
            "threads": self.threads,
            "compiled": self.compiled,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Job":
        """The inverse of :meth:`to_json`."""
        rows = tuple(ROW_BY_NAME[name] for name in data["rows"])
        return cls(rows, data["regime"], Effort(**data["effort"]), data["threads"], data["compiled"])


def time_row(row: Row, job: Job) -> Result:
    """Time one row in this process."""
    built = contenders.build(row, job.compiled)
    with torch.set_grad_enabled(built.with_grad):
        timings = interleaved(built.calls, job.effort)
    return Result(row, job.regime, torch.get_num_threads(), built.copies, timings)


def work(job: Job, out: TextIO) -> None:
    """Write the environment, then each result as soon as it is there."""
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    print(json.dumps({"environment": environment.describe()}), file=out, flush=True)
    for row in job.rows:
        print(json.dumps(time_row(row, job).to_json()), file=out, flush=True)


if __name__ == "__main__":
    try:
        work(Job.from_json(json.load(sys.stdin)), sys.stdout)
    except KeyboardInterrupt:
        sys.exit(130)
