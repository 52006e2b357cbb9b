"""Results, their tables and pictures, and the process that makes them."""

import io
import json
import re
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from normkit.bench import environment, picture, report
from normkit.bench.measure import Effort, Timing
from normkit.bench.process import busy_processes
from normkit.bench.progress import Progress
from normkit.bench.results import Result
from normkit.bench.runner import Times
from normkit.bench.table import ROW_BY_NAME
from normkit.bench.worker import Job, work
from normkit.errors import UserError

BATCH = "BatchNorm2d (32,64,56,56) float32 forward"
SMALL = "BatchNorm1d (8,64) float32 evaluation"
MakeResult = Callable[..., Result]
TINY = Effort(rounds=2, sample_seconds=1e-5, row_seconds=1.0)


def test_ratio_bar_and_copies(make_result: MakeResult) -> None:
    result = make_result(BATCH, ours=2.0, torch=8.0, copy=1.0)
    assert (result.ratio, result.target, result.passed) == (4.0, 3.3, True)
    assert (result.in_copies("ours"), result.in_copies("torch")) == (2.0, 8.0)
    assert result.compiled_ratio is None
    assert make_result(BATCH, ours=2.0, torch=8.0, compiled=3.0, copy=1.0).compiled_ratio == 1.5


def test_no_verdict_with_other_threads(make_result: MakeResult) -> None:
    result = make_result(BATCH, threads=1, ours=2.0, torch=1.0, copy=1.0)
    assert result.passed is None
    assert report.verdict(result) == "slower"


def test_no_copies_of_small_inputs_and_networks(make_result: MakeResult) -> None:
    assert make_result(SMALL, ours=2.0, torch=1.0, copy=1.0).in_copies("ours") is None
    assert make_result("lenet training step", ours=2.0, torch=1.0).in_copies("ours") is None


@pytest.mark.parametrize(
    ("ours", "torchs", "verdict"), [(1.0, 4.0, "reached"), (1.0, 2.0, "missed"), (2.0, 1.0, "missed")]
)
def test_verdict(make_result: MakeResult, ours: float, torchs: float, verdict: str) -> None:
    assert report.verdict(make_result(BATCH, ours=ours, torch=torchs, copy=1.0)) == verdict


def test_a_wide_spread_is_said(make_result: MakeResult) -> None:
    result = make_result(BATCH, ours=1.0, torch=4.0, copy=1.0)
    result.timings["torch"] = Timing(4.0, 3.0, 5.0, 9)
    assert report.verdict(result) == "unsteady"
    assert any("quieter" in note for note in report.sections([result])[0].notes)


def test_json_round_trip(make_result: MakeResult) -> None:
    for result in (
        make_result(BATCH, ours=2.0, torch=8.0, copy=1.0),
        make_result("mobilenet channels_last training step", "default", ours=2.0, torch=8.0, compiled=1.0),
    ):
        assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_json_shape(make_result: MakeResult) -> None:
    data = make_result(BATCH, ours=2.0, torch=8.0, copy=1.0).to_json()
    assert data["name"] == BATCH
    assert (data["norm"], data["shape"], data["layout"], data["dtype"], data["pass"]) == (
        "BatchNorm2d",
        [32, 64, 56, 56],
        "contiguous",
        "float32",
        "forward",
    )
    assert data["seconds"]["ours"] == {"median": 2.0, "low": 1.9, "high": 2.1, "samples": 5}
    assert data["copies"] == {"ours": 2.0, "torch": 8.0}
    assert (data["ratio"], data["target"], data["passed"], data["threads"]) == (4.0, 3.3, True, 2)


def test_table_shows_losses(make_result: MakeResult) -> None:
    results = [
        make_result(BATCH, ours=2e-3, torch=8e-3, copy=1e-3),
        make_result(SMALL, ours=2e-5, torch=1e-5, copy=1e-6),
        make_result(BATCH, "default", ours=2e-3, torch=1e-3, copy=1e-3),
    ]
    retained, default = report.sections(results)
    assert retained.rows[0] == (
        "BatchNorm2d (32,64,56,56) float32", "forward", "2 ms ±5%", "8 ms ±5%", "4.00", "3.3", "reached", "2.0 / 8.0",
    )  # fmt: skip
    assert retained.rows[1][4:] == ("0.50", "0.9", "missed", "")
    assert retained.notes[0].startswith("torch.nn is faster in 1 of 2 rows")
    assert retained.notes[2] == "1 of 2 steady rows reach their target, 1 miss it."
    assert "MALLOC_TOP_PAD_" in retained.title
    assert default.rows[0][5] == "0.9"


def test_compiled_column(make_result: MakeResult) -> None:
    (section,) = report.sections([make_result(BATCH, ours=2e-3, torch=8e-3, compiled=3e-3, copy=1e-3)])
    assert section.rows[0][section.columns.index("compiled")] == "1.50"


def test_pictures(make_result: MakeResult, tmp_path: Path) -> None:
    norms = [
        make_result(name, regime, ours=2.0, torch=80.0, copy=1.0)
        for name in (BATCH, BATCH.replace("forward", "forward+backward"), SMALL)
        for regime in ("default", "retained")
    ]
    models = [make_result("lenet training step", ours=2.0, torch=8.0, compiled=1.0)]
    for number, results in enumerate((norms, models, [make_result(SMALL, ours=2.0, torch=1.0, copy=1.0)])):
        path = tmp_path / f"{number}.png"
        picture.draw(results, "a CPU", path)
        assert path.read_bytes().startswith(b"\x89PNG")


def test_regimes_differ_in_three_variables() -> None:
    base = {"PATH": "/bin", "MALLOC_TOP_PAD_": "1"}
    assert environment.variables("default", base) == {"PATH": "/bin"}
    assert environment.variables("retained", base) == {"PATH": "/bin", **environment.KEEP_MEMORY}
    assert len(environment.KEEP_MEMORY) == 3


def test_environment_names_cpu_threads_and_versions() -> None:
    facts = environment.describe()
    assert facts["threads"] == str(torch.get_num_threads())
    assert re.search(r"normkit \S+, torch 2\.\S+, numpy \S+, numba \S+, Python 3", facts["versions"])
    assert facts["CPU"]


def test_work_writes_a_line_a_row() -> None:
    rows = (ROW_BY_NAME[SMALL], ROW_BY_NAME["LayerNorm (1,768) float32 forward+backward"])
    job = Job(rows, "default", TINY, threads=torch.get_num_threads())
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
    out = io.StringIO()
    work(job, out)
    first, *lines = map(json.loads, out.getvalue().splitlines())
    assert set(first) == {"environment"}
    results = [Result.from_json(line) for line in lines]
    assert tuple(result.row for result in results) == rows
    assert all(set(result.timings) == {"ours", "torch", "copy"} for result in results)


def test_times_run_in_a_process_for_each_regime() -> None:
    class Steps(Progress):
        def __init__(self) -> None:
            self.said: list[int | str] = []

        def begin(self, total: int) -> None:
            self.said.append(total)

        def step(self, text: str) -> None:
            self.said.append(text)

        def end(self) -> None:
            self.said.append("end")

    steps = Steps()
    times = Times.of([ROW_BY_NAME[SMALL]], threads=1, quick=True)
    times.run(steps)
    assert [result.regime for result in times.results] == ["default", "retained"]
    assert times.environment["threads"] == "1"
    assert steps.said[0] == 2
    assert steps.said[-1] == "end"
    assert str(steps.said[1]).startswith(f"{SMALL}, default: ")


def test_busy_processes_run_beside_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times.of([ROW_BY_NAME[SMALL]], "default", beside=2)  # which asks the system for its processor
    seen: list[int | None] = []

    def lines(*_: object) -> AbstractContextManager[list[dict[str, dict[str, str]]]]:
        seen.extend(process.poll() for process in running)
        return nullcontext([{"environment": {"threads": "1"}}])

    running: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        running.append(real(*arguments, **options))
        return running[-1]

    monkeypatch.setattr("normkit.bench.process.subprocess.Popen", start)
    monkeypatch.setattr("normkit.bench.runner.json_lines", lines)
    times.run(Progress())
    assert seen == [None, None]
    assert all(process.poll() is not None for process in running)
    assert times.environment == {"threads": "1", "beside": "2 busy processes"}


def test_a_busy_process_ends_with_the_one_that_started_it() -> None:
    with busy_processes(1) as (process,):
        assert process.stdin is not None
        process.stdin.close()  # as it is when that one is killed
        assert process.wait(timeout=60) == 0


def test_a_process_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    times = Times.of([ROW_BY_NAME[SMALL]], regime="retained")
    monkeypatch.setattr("normkit.bench.process.sys.executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        times.run(Progress())


def test_unknown_regime() -> None:
    with pytest.raises(UserError, match="`regime` must be one of default, retained, both, not 'warm'"):
        Times.of([ROW_BY_NAME[SMALL]], regime="warm")
