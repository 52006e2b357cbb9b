"""The process that times rows: ``python -m normkit.bench.worker JOB``, a line of JSON out a row.

It is a process of its own, because an allocator reads its settings once, when the process starts.
"""

import json
import sys
from dataclasses import asdict, dataclass
from typing import Any, TextIO

import torch

from normkit.bench import contenders, environment
from normkit.bench.cases import Row
from normkit.bench.measure import Effort, interleaved
from normkit.bench.results import Result
from normkit.bench.table import ROW_BY_NAME


@dataclass(frozen=True)
class Job:
    """The rows to time, and how."""

    rows: tuple[Row, ...]
    regime: str
    effort: Effort
    threads: int | None = None
    compiled: bool = False

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types; rows by their names."""
        return {
            "rows": [row.name for row in self.rows],
            "regime": self.regime,
            "effort": asdict(self.effort),
            "threads": self.threads,
            "compiled": self.compiled,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Job":
        """Return what :meth:`to_json` was called on."""
        rows = tuple(ROW_BY_NAME[name] for name in data["rows"])
        return cls(rows, data["regime"], Effort(**data["effort"]), data["threads"], data["compiled"])


def time_row(row: Row, job: Job) -> Result:
    """Time one row in this process."""
    built = contenders.build(row, compiled=job.compiled)
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
    work(Job.from_json(json.loads(sys.argv[1])), sys.stdout)
