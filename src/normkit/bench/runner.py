"""The benchmark of times: a job for each allocator regime, each in a fresh process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normkit.bench import picture, report
from normkit.bench.cases import Row
from normkit.bench.contenders import OURS
from normkit.bench.environment import REGIMES, describe, variables
from normkit.bench.measure import FULL, QUICK
from normkit.bench.progress import Progress
from normkit.bench.results import Result
from normkit.bench.section import Section, duration
from normkit.bench.worker import Job
from normkit.errors import UserError


@dataclass
class Times:
    """Times of our layers, of torch.nn's, and of a copy.

    Args:
        jobs: What to time; one for each regime.
    """

    jobs: Sequence[Job]
    results: list[Result] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=describe)

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        regime: str = "both",
        threads: int | None = None,
        quick: bool = False,
        compiled: bool = False,
    ) -> "Times":
        """Plan to time rows.

        Args:
            regime: "default", "kept", or "both".
            threads: None: torch's choice.
            quick: Take fewer samples.
            compiled: Also time torch.compile of torch.nn's layers.
        Raises:
            UserError: there is no such regime.
        """
        if regime not in (*REGIMES, "both"):
            raise UserError(f"--regime must be one of {', '.join(REGIMES)}, both, not {regime!r}")
        effort = QUICK if quick else FULL
        chosen = REGIMES if regime == "both" else (regime,)
        return cls([Job(tuple(rows), one, effort, threads, compiled) for one in chosen])

    def run(self, progress: Progress) -> None:
        """Run the jobs one after the other."""
        progress.begin(sum(len(job.rows) for job in self.jobs))
        try:
            for job in self.jobs:
                with _worker(job) as lines:
                    for line in lines:
                        self._take(json.loads(line), progress)
        finally:
            progress.end()

    def _take(self, said: dict[str, Any], progress: Progress) -> None:
        if "environment" in said:
            self.environment = said["environment"]
            return
        result = Result.from_json(said)
        self.results.append(result)
        ours = duration(result.timings[OURS].median)
        progress.step(f"{result.row.name}, {result.regime}: {ours}, torch/ours {result.ratio:.2f}")

    def sections(self) -> list[Section]:
        """A table for each regime."""
        return report.sections(self.results)

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {"environment": self.environment, "rows": [result.to_json() for result in self.results]}

    def draw(self, path: Path) -> None:
        """A bar chart."""
        picture.draw(self.results, self.environment.get("CPU", ""), path)


@contextmanager
def _worker(job: Job) -> Iterator[Iterator[str]]:
    """The lines that a process says about a job."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "normkit.bench.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=variables(job.regime, os.environ),
        start_new_session=True,  # Ctrl-C is for this process, which then ends the other
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        json.dump(job.to_json(), process.stdin)
        process.stdin.close()
        yield iter(process.stdout)
        status = process.wait()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    if status != 0:
        raise RuntimeError(f"the measuring process ended with status {status}")
