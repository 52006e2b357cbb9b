"""Runs a job for each allocator regime, each in a fresh process."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from normkit.bench import environment
from normkit.bench.results import Measurements, Result
from normkit.bench.worker import Job


class Progress:
    """Is told how far a run is; says nothing. Subclasses do."""

    def begin(self, total: int) -> None:
        """So many rows, in all regimes together."""

    def row(self, result: Result) -> None:
        """A row is done."""

    def end(self) -> None:
        """No more calls come."""


def run(jobs: Sequence[Job], measurements: Measurements, progress: Progress | None = None) -> None:
    """Run jobs one after the other and add their results to measurements.

    What an interrupted run has measured is in ``measurements``.
    """
    progress = progress or Progress()
    progress.begin(sum(len(job.rows) for job in jobs))
    try:
        for job in jobs:
            with _worker(job) as lines:
                for first in lines:
                    measurements.environment = json.loads(first)
                    break
                for line in lines:
                    result = Result.from_json(json.loads(line))
                    measurements.results.append(result)
                    progress.row(result)
    finally:
        progress.end()


@contextmanager
def _worker(job: Job) -> Iterator[Iterator[str]]:
    """The lines that a process says about a job."""
    command = [sys.executable, "-P", "-m", "normkit.bench.worker"]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment.variables(job.regime, os.environ),
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
