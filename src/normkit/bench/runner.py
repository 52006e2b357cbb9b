"""The benchmark of times: a job for each allocator regime, each in a fresh process."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normkit.bench import report
from normkit.bench.cases import Row
from normkit.bench.contenders import OURS
from normkit.bench.environment import REGIMES, describe, variables
from normkit.bench.measure import FULL, QUICK
from normkit.bench.process import busy_processes, json_lines
from normkit.bench.progress import Progress
from normkit.bench.results import Result
from normkit.bench.section import Section, duration
from normkit.bench.worker import Job
from normkit.choices import did_you_mean
from normkit.errors import UserError


@dataclass
class Times:
    """Times of our layers, of torch.nn's, and of a copy.

    Args:
        jobs: The rows to time, and how; one job for each regime.
        beside: How many other processes compute meanwhile.
    """

    jobs: Sequence[Job]
    beside: int = 0
    results: list[Result] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=describe)

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        regime: str = "both",
        *,
        threads: int | None = None,
        quick: bool = False,
        compiled: bool = False,
        beside: int = 0,
    ) -> "Times":
        """Plan to time rows.

        Args:
            regime: "default", "retained", or "both".
            threads: None: torch's choice.
            quick: Take fewer samples.
            compiled: Also time torch.compile of torch.nn's layers.
            beside: How many other processes compute meanwhile.
        Raises:
            UserError: there is no such regime.
        """
        if regime not in (*REGIMES, "both"):
            meant = did_you_mean(regime, (*REGIMES, "both"))
            raise UserError(f"`regime` must be one of {', '.join(REGIMES)}, both, not {regime!r}{meant}")
        effort = QUICK if quick else FULL
        chosen = REGIMES if regime == "both" else (regime,)
        return cls([Job(tuple(rows), one, effort, threads, compiled) for one in chosen], beside)

    def run(self, progress: Progress) -> None:
        """Run the jobs one after the other."""
        progress.begin(sum(len(job.rows) for job in self.jobs))
        try:
            with busy_processes(self.beside):
                for job in self.jobs:
                    command = ["-m", "normkit.bench.worker", json.dumps(job.to_json())]
                    with json_lines(command, variables(job.regime, os.environ)) as lines:
                        for line in lines:
                            self._take(line, progress)
        finally:
            progress.end()

    def _take(self, line: dict[str, Any], progress: Progress) -> None:
        if "environment" in line:
            beside = {"beside": f"{self.beside} busy process{'es' * (self.beside > 1)}"} if self.beside else {}
            self.environment = {**line["environment"], **beside}
            return
        result = Result.from_json(line)
        self.results.append(result)
        ours = duration(result.timings[OURS].median)
        note = "" if result.steady else ", unsteady"
        progress.step(f"{result.row.name}, {result.regime}: {ours}, ratio {result.ratio:.2f}{note}")

    def sections(self) -> list[Section]:
        """Return a table for each regime."""
        return report.sections(self.results)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"environment": self.environment, "rows": [result.to_json() for result in self.results]}

    def draw(self, path: Path) -> None:
        """Write a bar chart."""
        from normkit.bench import picture

        picture.draw(self.results, self.environment.get("CPU", ""), path)
