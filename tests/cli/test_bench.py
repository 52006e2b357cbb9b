"""``normkit bench`` as a user runs it."""

import io
import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from normkit.bench.accuracy import Accuracy
from normkit.bench.crossover import Crossover
from normkit.bench.document import Document
from normkit.bench.huge_pages import HugePages
from normkit.bench.measure import Timing
from normkit.bench.memory import Memory
from normkit.bench.progress import Progress
from normkit.bench.results import Result
from normkit.bench.runner import Times
from normkit.bench.section import Section
from normkit.bench.start import Start
from normkit.bench.sync import SyncOverhead
from normkit.bench.table import ROW_BY_NAME, ROWS
from normkit.cli import bench_output, console, main

Run = Callable[..., tuple[object, str, str]]
ROW = "BatchNorm1d (8,64) float32 evaluation"
TIMING = Timing(1e-3, 1e-3, 1e-3, 3)
RESULT = Result(ROW_BY_NAME[ROW], "retained", 2, 1.0, dict.fromkeys(("ours", "torch", "copy"), TIMING))
OTHERS = {
    "accuracy": (Accuracy, "accuracy"),
    "memory": (Memory, "memory"),
    "start": (Start, "start"),
    "crossover": (Crossover, "crossover"),
    "sync": (SyncOverhead, "sync"),
    "huge-pages": (HugePages, "huge_pages"),
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", "bench", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run_command


def nothing(*_: object) -> None:
    """A benchmark that finds nothing."""


def test_one_row_as_a_table_and_a_picture(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "bench.png"
    options = ["--filter", ROW, "--quick", "--regime", "default", "--threads", "1", "--plot", str(path)]
    code, out, err = run("times", *options)
    assert code == 0, err
    assert "BatchNorm1d (8,64) float32" in out
    assert "The targets are those for 2 threads" in out
    assert "threads" in out
    assert f"1/1  {ROW}, default: " in err
    assert path.read_bytes().startswith(b"\x89PNG")


def test_one_row_as_json(run: Run) -> None:
    options = ["--filter", ROW, "--quick", "--regime", "retained", "--threads", "1", "--format", "json"]
    code, out, err = run("times", *options)
    assert code == 0, err
    report = json.loads(out)
    assert report["environment"]["threads"] == "1"
    (row,) = report["rows"]
    assert (row["name"], row["regime"], row["passed"]) == (ROW, "retained", None)


def test_without_a_command_it_times(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[Times] = []
    monkeypatch.setattr(Times, "run", lambda self, progress: timed.append(self))
    assert run()[0] == run("--quick", "--filter", ROW)[0] == 0
    assert timed[0].jobs[0].rows == ROWS
    assert [job.rows for job in timed[1].jobs] == [(ROW_BY_NAME[ROW],)] * 2


@pytest.mark.parametrize("command", OTHERS)
def test_another_benchmark(run: Run, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    kind, key = OTHERS[command]
    monkeypatch.setattr(kind, "run", nothing)
    code, out, _ = run(command, "--format", "json")
    assert code == 0
    found = json.loads(out)
    assert not found[key]
    assert found["environment"]
    assert found["interrupted"] is False
    code, out, _ = run(command)
    assert code == 0
    assert "Machine" in out


def test_options_reach_the_benchmarks(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    monkeypatch.setattr(Accuracy, "run", lambda self, progress: seen.append(torch.get_num_threads()))
    monkeypatch.setattr(SyncOverhead, "run", lambda self, progress: seen.append(self.settings.ranks))
    monkeypatch.setattr(HugePages, "run", lambda self, progress: seen.append(self.processes))
    threads = torch.get_num_threads() + 1
    run("accuracy", "--threads", str(threads))
    run("sync", "--ranks", "3")
    run("huge-pages", "--processes", "4")
    assert seen == [threads, 3, 4]


def test_markup_in_facts_and_notes_is_text(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "run", lambda self, progress: self.environment.update(pages="always [madvise] never"))
    _, out, _ = run("memory")
    assert "always [madvise] never" in out


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Times, progress: Progress) -> None:
        self.results.append(RESULT)
        raise KeyboardInterrupt

    monkeypatch.setattr(Times, "run", interrupt)
    code, out, err = run("times", "--filter", ROW)
    assert code == 130
    assert "BatchNorm1d (8,64) float32" in out
    assert "what was measured so far" in err
    code, out, _ = run("times", "--filter", ROW, "--format", "json")
    assert code == 130
    assert json.loads(out)["interrupted"]


def test_ctrl_c_prints_the_rows_so_far() -> None:
    command = [sys.executable, "-m", "normkit", "bench", "times", "--quick", "--threads", "1"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # background jobs ignore it
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:  # a busy machine is named before the first row
            if line.startswith("1/"):
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "what was measured so far" in err
    assert "Traceback" not in err
    assert "BatchNorm2d (32,64,56,56) float32" in out


def test_an_interrupted_document_is_printed_and_not_written(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def found(self: Times, progress: Progress) -> None:
        self.results.append(RESULT)

    def interrupt(self: Accuracy, progress: Progress) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Times, "run", found)
    monkeypatch.setattr(Accuracy, "run", interrupt)
    path = tmp_path / "bench.md"
    path.write_text("as it was")
    code, out, err = run("report", str(path))
    assert code == 130
    assert "BatchNorm1d (8,64) float32" in out
    assert "what was measured so far" in err
    assert path.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["bench.md"]


def test_a_document_is_written_and_not_printed(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Document, "run", nothing)
    path = tmp_path / "bench.md"
    code, out, err = run("report", str(path))
    assert (code, out) == (0, "")
    assert "written" in err
    assert path.read_text().startswith("# Benchmarks")


def test_a_document_as_json_too(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Document, "run", nothing)
    code, out, _ = run("report", str(tmp_path / "bench.md"), "--format", "json")
    assert code == 0
    assert json.loads(out)["environment"]
    assert (tmp_path / "bench.md").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["times", "--filter", "nonsense"], "--filter 'nonsense' matches none"),
        (["times", "--filter", "nonsense", "--quick"], "rows of a --quick run"),
        (["times", "--model", "vgg"], "--model must be one of"),
        (["times", "--regime", "warm"], "--regime must be one of"),
        (["times", "--format", "xml"], "--format must be table or json"),
        (["--memory", "--start"], "--memory is a command, not an option: normkit bench memory"),
        (["accuracy", "--filter", "batch"], "No such option: --filter"),
        (["memory", "--plot", "memory.png"], "No such option: --plot"),
        (
            ["times", "--plot", "bench.txt"],
            "expected a file .png or .svg or .pdf in a folder that exists; got bench.txt",
        ),
        (["accuracy", "--plot", "nowhere/bench.png"], "in a folder that exists"),
        (["report", "bench.html"], "expected a file .md"),
        (["report"], "Missing argument 'FILE'"),
        (["report", "bench.md", "--plot", "bench.png"], "No such option: --plot"),
        (["report", "folder.md"], "folder.md cannot be written (Is a directory)"),
        (["times", "--plot", "folder.png"], "folder.png cannot be written (Is a directory)"),
        (["memory", "--regime", "retained"], "No such option: --regime"),
        (["times", "--threads", "0"], "--threads must be between 1 and 256, not 0"),
        (["crossover", "--threads", "1000000"], "--threads must be between 1 and 256, not 1000000"),
        (["sync", "--threads", "0"], "--threads must be between 1 and 256, not 0"),
        (["sync", "--ranks", "0"], "--ranks"),
        (["huge-pages", "--processes", "0"], "--processes"),
    ],
)
def test_errors(run: Run, arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "folder.png").mkdir()
    code, out, err = run(*arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert out == ""
    assert not any(path.is_file() for path in tmp_path.iterdir())


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_table_loses_nothing_on_a_narrow_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=screen, force_terminal=True, width=width, highlight=False))
    columns = ("case", *(f"column {number}" for number in range(8)))
    row = ("BatchNorm2d (32,64,56,56) float32 forward", *(f"{number}.25 ms ±12%" for number in range(8)))
    bench_output.print_section(Section("A title", columns, (row,), ("A note.",)))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert all(cell in " ".join(shown.split()) for cell in row)
    assert max(map(len, shown.splitlines())) <= width


def test_a_narrow_terminal_gets_the_cases_above_aligned_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=screen, force_terminal=True, width=80, highlight=False))
    case = "BatchNorm2d (32,64,56,56) channels_last float32"
    rows = ((case, "forward", "1 ms"), (case, "forward+backward", "12.5 ms"), ("LayerNorm", "forward", "9 ms"))
    bench_output.print_section(Section("A title", ("case", "pass", "a wide column " * 2), rows))
    shown = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue()).splitlines()
    assert [line.split() for line in shown[2:7]] == [
        case.split(), ["forward", "1", "ms"], ["forward+backward", "12.5", "ms"], ["LayerNorm"], ["forward", "9", "ms"],
    ]  # fmt: skip
    assert len({len(line) for line in (shown[1], shown[3], shown[4], shown[6])}) == 1


def test_a_busy_machine_is_told_before_and_in_the_results(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Memory, "run", nothing)
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    code, out, err = run("memory")
    assert code == 0
    assert err.startswith("This machine was busy before: a load of 99.0 on ")
    assert "This machine was busy before" in out
    monkeypatch.setattr("os.getloadavg", lambda: (0.0, 0.0, 0.0))
    code, out, err = run("memory")
    assert (code, err) == (0, "")
    assert "busy" not in out


def test_no_word_of_makers_on_a_screen(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    unsteady = replace(RESULT, timings={name: Timing(1.0, 0.5, 1.5, 9) for name in RESULT.timings})
    monkeypatch.setattr(Times, "run", lambda self, progress: self.results.extend([RESULT, unsteady]))
    times = run("times", "--filter", ROW)[1]
    assert "Unsteady, 1 of 2 rows" in times
    for out in (times, *(run(*name.split())[1] for name in ("--help", "times --help", "memory --help"))):
        assert not re.search(r"\b(bars?|MISS|kept|in copies)\b", out), out
