"""``normkit check`` on many targets, as a teacher with a folder of submissions runs it."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from normkit.cli import console, main

LAYER_NORM = (
    "import numpy as np\n"
    "def layer_norm(x, gamma, beta, eps=1e-5):\n"
    "    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)\n"
    "    return ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(x.dtype)\n"
)

Run = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", "check", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run_command


@pytest.fixture
def submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "submissions"
    folder.mkdir()
    (folder / "anna.py").write_text(LAYER_NORM)
    (folder / "bert.py").write_text(LAYER_NORM.replace("np.sqrt(var + eps)", "(np.sqrt(var) + eps)"))
    (folder / "carl.py").write_text("import nowhere_at_all\ndef layer_norm(x): ...\n")
    (folder / "dora.py").write_text("print('hello')\n")
    monkeypatch.chdir(tmp_path)
    return "submissions"


def test_a_line_for_each_submission(run: Run, submissions: str) -> None:
    code, out, err = run(submissions, "--summary")
    lines = out.splitlines()
    assert (code, err) == (2, "")
    assert lines[0].split()[:5] == ["target", "verdict", "family", "err", "warn"]
    assert re.fullmatch(r"submissions/anna\.py:layer_norm +equivalent +layer +0 +0", lines[1])
    assert re.fullmatch(r"submissions/bert\.py:layer_norm +not equivalent +layer +1 +0 +eps-misplaced", lines[2])
    assert re.fullmatch(r"submissions/carl\.py +not run +- +- +- +importing it raised Module.*", lines[3])
    assert re.fullmatch(r"submissions/dora\.py +no layer +- +- +- +.*it defines nothing", lines[4])
    assert lines[5:] == ["", "4 targets: 1 equivalent, 1 not equivalent, 1 not run, 1 no layer."]


def test_reports_come_before_the_table_without_summary(run: Run, submissions: str) -> None:
    code, out, _ = run(f"{submissions}/anna.py", f"{submissions}/bert.py:layer_norm", "--jobs", "1")
    assert code == 1
    parts = [
        "submissions/anna.py:layer_norm\n\nWhat it computes",
        "\nEquivalent to torch.nn.LayerNorm",
        "submissions/bert.py:layer_norm\n\nWhat it computes",
        "\nerror  eps-misplaced",
        "\nNot equivalent to torch.nn.LayerNorm",
        "\ntarget ",
        "\n2 targets: 1 equivalent, 1 not equivalent.",
    ]
    places = [out.index(part) for part in parts]
    assert places == sorted(places)


def test_one_file_with_one_layer_gives_its_report(run: Run, submissions: str) -> None:
    code, out, _ = run(f"{submissions}/anna.py")
    assert code == 0
    assert out.startswith("submissions/anna.py:layer_norm\n\nWhat it computes")
    assert "targets" not in out


def test_one_file_with_two_layers_gives_both(run: Run, submissions: str) -> None:
    Path(submissions, "anna.py").write_text(LAYER_NORM + LAYER_NORM.replace("def layer_norm", "def ln_two"))
    code, out, _ = run(f"{submissions}/anna.py")
    assert code == 0
    assert out.count("What it computes, as measured") == 2
    assert out.splitlines()[-1] == "2 targets: 2 equivalent."


def test_json_is_one_document(run: Run, submissions: str) -> None:
    code, out, _ = run(submissions, "--format", "json")
    plain = json.loads(out)
    assert code == 2
    assert plain["counts"] == {"equivalent": 1, "not equivalent": 1, "not run": 1, "no layer": 1}
    assert [(target["verdict"], target["ok"]) for target in plain["targets"]] == [
        ("equivalent", True),
        ("not equivalent", False),
        ("not run", False),
        ("no layer", False),
    ]
    assert plain["targets"][0]["identity"]["reduces"] == "C: per sample and position"
    assert "targets" in json.loads(run(f"{submissions}/anna.py", "--summary", "--format", "json")[1])


def test_github_annotates_all(run: Run, submissions: str) -> None:
    code, out, _ = run(submissions, "--format", "github")
    assert code == 2
    assert "::error file=submissions/bert.py,line=2,title=normkit check%3A eps-misplaced::" in out
    assert "::error file=submissions/carl.py,line=1,title=normkit check%3A not run::importing it raised" in out
    assert "\nsubmissions/dora.py: no layer\n" in out
    assert out.splitlines()[-1].startswith("4 targets: ")


@pytest.mark.parametrize("width", [80, 160])
def test_terminal(run: Run, submissions: str, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    shown, progress = io.StringIO(), io.StringIO()
    monkeypatch.setattr(console, "out", Console(file=shown, force_terminal=True, width=width, highlight=False))
    monkeypatch.setattr(console, "err", Console(file=progress, force_terminal=True, width=width))
    code, _, _ = run(submissions, "--summary")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.getvalue())
    assert code == 2
    assert max(map(len, text.splitlines())) <= width
    assert text.startswith("submissions\ntarget ")
    assert re.search(r"\nanna\.py:layer_norm +equivalent +layer", text)
    on_its_own_line = re.search(r"\n    eps-misplaced *\n", text)
    assert (on_its_own_line is not None) == (width == 80)
    assert "3/3" in progress.getvalue()
    assert "\x1b[1;32mequivalent" in shown.getvalue()


def test_jobs_must_be_some(run: Run, submissions: str) -> None:
    code, out, err = run(submissions, "--jobs", "0")
    assert (code, out, err) == (2, "", "error: --jobs must be 1 or more, not 0\n")
    code, out, err = run(submissions, "--timeout", "0")
    assert (code, out, err) == (2, "", "error: --timeout must be more than 0 seconds, not 0\n")


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_interrupting_prints_what_there_is(submissions: str) -> None:
    started = Path(submissions, "started").resolve()
    hanging = f"open({str(started)!r}, 'w').close()\nwhile True: pass\ndef layer_norm(x): ...\n"
    Path(submissions, "bert.py").write_text(hanging)
    command = [sys.executable, "-m", "normkit", "check", submissions, "--summary", "--jobs", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not started.exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate()
    assert process.returncode == 130
    assert re.search(r"anna\.py:layer_norm +equivalent", out)
    assert re.search(r"bert\.py:layer_norm +interrupted", out)
    assert re.search(r"carl\.py:layer_norm +interrupted", out)
