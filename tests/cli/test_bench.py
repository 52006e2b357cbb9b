"""``normkit bench`` as a user runs it."""

import json
import sys

import pytest

from normkit.bench.accuracy import Accuracy
from normkit.bench.cases import ROW_BY_NAME
from normkit.bench.document import Document
from normkit.bench.measure import Timing
from normkit.bench.memory import Memory
from normkit.bench.results import Result
from normkit.bench.runner import Times
from normkit.cli import main

ROW = "BatchNorm1d (8,64) float32 evaluation"
TIMING = Timing(1e-3, 1e-3, 1e-3, 3)
RESULT = Result(ROW_BY_NAME[ROW], "kept", 2, 1.0, dict.fromkeys(("ours", "torch", "copy"), TIMING))


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
        self.results.append(RESULT)
        raise KeyboardInterrupt

    monkeypatch.setattr(Times, "run", interrupt)
    code, out, err = run("--filter", ROW)
    assert code == 130
    assert "BatchNorm1d (8,64) float32" in out
    assert "what was measured so far" in err
    code, out, _ = run("--filter", ROW, "--format", "json")
    assert code == 130
    assert json.loads(out)["interrupted"]


def test_an_interrupted_document_is_printed_and_not_written(run, monkeypatch, tmp_path):
    def found(self, progress):
        self.results.append(RESULT)

    def interrupt(self, progress):
        raise KeyboardInterrupt

    monkeypatch.setattr(Times, "run", found)
    monkeypatch.setattr(Accuracy, "run", interrupt)
    path = tmp_path / "bench.md"
    path.write_text("as it was")
    code, out, err = run("--markdown", str(path))
    assert code == 130
    assert "BatchNorm1d (8,64) float32" in out
    assert "what was measured so far" in err
    assert path.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["bench.md"]


def test_a_document_is_written_and_not_printed(run, monkeypatch, tmp_path):
    monkeypatch.setattr(Document, "run", lambda self, progress: None)
    path = tmp_path / "bench.md"
    code, out, err = run("--markdown", str(path))
    assert (code, out) == (0, "")
    assert "written" in err
    assert path.read_text().startswith("# Benchmarks")


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
        (["--markdown", "bench.md", "--plot", "bench.png"], "leave --plot away"),
        (["--markdown", "folder.md"], "folder.md cannot be written (Is a directory)"),
        (["--plot", "folder.png"], "folder.png cannot be written (Is a directory)"),
        (["--memory", "--regime", "kept"], "leave the choice of rows away"),
        (["--threads", "0"], "--threads must be between 1 and 256, not 0"),
        (["--threads", "1000000"], "--threads must be between 1 and 256, not 1000000"),
    ],
)
def test_errors(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.md").mkdir()
    (tmp_path / "folder.png").mkdir()
    code, out, err = run(*arguments)
    assert code == 2
    assert message in " ".join(err.split())
    assert out == ""
    assert not any(path.is_file() for path in tmp_path.iterdir())
