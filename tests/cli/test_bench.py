"""``normkit bench`` as a user runs it."""

import json
import sys

import pytest

from normkit.bench.cases import ROW_BY_NAME
from normkit.bench.measure import Timing
from normkit.bench.memory import Memory
from normkit.bench.results import Result
from normkit.bench.runner import Times
from normkit.cli import main

ROW = "BatchNorm1d (8,64) float32 evaluation"


@pytest.fixture
def run(monkeypatch, capsys):
    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["normkit", "bench", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run_command


def test_one_row_as_a_table_and_a_picture(run, tmp_path):
    path = tmp_path / "bench.png"
    code, out, err = run("--filter", ROW, "--quick", "--regime", "default", "--threads", "1", "--plot", str(path))
    assert code == 0, err
    assert "BatchNorm1d (8,64) float32" in out
    assert "The bars are those for 2 threads" in out
    assert "threads" in out
    assert f"1/1  {ROW}, default: " in err
    assert path.read_bytes().startswith(b"\x89PNG")


def test_one_row_as_json(run):
    code, out, err = run("--filter", ROW, "--quick", "--regime", "kept", "--threads", "1", "--format", "json")
    assert code == 0, err
    report = json.loads(out)
    assert report["environment"]["threads"] == "1"
    (row,) = report["rows"]
    assert (row["name"], row["regime"], row["passed"]) == (ROW, "kept", None)


def test_another_benchmark(run, monkeypatch):
    monkeypatch.setattr(Memory, "run", lambda self, progress: None)
    code, out, _ = run("--memory", "--format", "json")
    assert code == 0
    assert json.loads(out)["memory"] == []


def test_markup_in_facts_and_notes_is_text(run, monkeypatch):
    monkeypatch.setattr(Memory, "run", lambda self, progress: self.environment.update(pages="always [madvise] never"))
    _, out, _ = run("--memory")
    assert "always [madvise] never" in out


def test_interrupted(run, monkeypatch):
    def interrupt(self, progress):
        timing = Timing(1e-3, 1e-3, 1e-3, 3)
        self.results.append(Result(ROW_BY_NAME[ROW], "kept", 2, 1.0, dict.fromkeys(("ours", "torch", "copy"), timing)))
        raise KeyboardInterrupt

    monkeypatch.setattr(Times, "run", interrupt)
    code, out, err = run("--filter", ROW)
    assert code == 130
    assert "BatchNorm1d (8,64) float32" in out
    assert "what was measured so far" in err
    code, out, _ = run("--filter", ROW, "--format", "json")
    assert code == 130
    assert json.loads(out)["interrupted"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--filter", "nonsense"], "matches none"),
        (["--model", "vgg"], "--model must be one of"),
        (["--regime", "warm"], "--regime must be one of"),
        (["--format", "xml"], "--format must be table or json"),
        (["--memory", "--start"], "choose one of"),
        (["--accuracy", "--filter", "batch"], "leave the choice of rows away"),
        (["--memory", "--plot", "memory.png"], "no picture of --memory"),
        (["--plot", "bench.txt"], "expected a file .png or .svg or .pdf in a folder that exists; got bench.txt"),
        (["--plot", "nowhere/bench.png"], "in a folder that exists"),
        (["--markdown", "bench.html"], "expected a file .md"),
        (["--threads", "0"], "threads"),
    ],
)
def test_errors(run, arguments, message):
    code, out, err = run(*arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert out == ""
