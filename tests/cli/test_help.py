"""The help screens, and the one way in which all commands say what is wrong with a command line."""

import os
import subprocess
import sys
from itertools import pairwise
from typing import NamedTuple

import pytest

from normkit.cli import main
from normkit.cli.plain import name_options, reflow

BENCHMARKS = ("times", "accuracy", "memory", "start", "crossover", "sync", "huge-pages", "report")
COMMANDS = (
    "",
    "train",
    "check",
    "conventions",
    "convert",
    "diagnose",
    "explain",
    "fold",
    "parameter-groups",
    "port",
    "recalibrate",
    "warmup",
    "bench",
    *(f"bench {name}" for name in BENCHMARKS),
)


class Printed(NamedTuple):
    """What a command left."""

    code: int
    out: str
    err: str


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> Printed:
    """The command line in this process."""
    monkeypatch.setattr(sys, "argv", ["normkit", *arguments])
    with pytest.raises(SystemExit) as exit_:
        main()
    code = exit_.value.code
    assert isinstance(code, int)
    return Printed(code, *capsys.readouterr())


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_fills_its_width_and_flags_have_no_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str, width: int
) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", width)
    code, out, _ = run(monkeypatch, capsys, *command.split(), "--help")
    assert code == 0
    assert "<bool>" not in out
    assert "-h " in out
    text = out.partition("╭")[0].splitlines()
    for line, after in pairwise(text):
        word = after.split()[0] if after.strip() and not after.startswith("     ") else None
        if line.strip() and word is not None:  # a line ends where the next word has no more room
            assert len(line.rstrip()) + 1 + len(word) > width - 2, (line, after)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--epochs", "x"], "see normkit train --help"),
        (["train", "--nonsense"], "No such option: --nonsense"),
        (["bench", "times", "extra"], "unexpected extra argument"),
        (["bench", "extra"], "No such command 'extra'; see normkit bench --help"),
        (["bench", "memory", "--quick"], "No such option: --quick; see normkit bench memory --help"),
        (["check", "--timeout", "x"], "see normkit check --help"),
        (["nonsense"], "No such command 'nonsense'; see normkit --help"),
        (["train", "--epochs", "0"], "--epochs must be 1 or more, not 0"),
        (["bench", "times", "--threads", "0"], "--threads must be between 1 and 256, not 0"),
    ],
)
def test_every_error_is_one_line_that_begins_alike(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    code, out, err = run(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert says in err


@pytest.mark.parametrize("name", BENCHMARKS)
def test_help_of_each_benchmark_teaches_by_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    code, out, _ = run(monkeypatch, capsys, "bench", name, "--help")
    assert code == 0
    assert "Examples" in out
    assert f"    normkit bench {name}" in out
    assert name in run(monkeypatch, capsys, "bench", "--help").out


def test_a_terminal_without_a_character_gets_another() -> None:
    command = [sys.executable, "-m", "normkit", "explain", "batch", "--lang", "zh"]
    run = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=False)
    assert run.returncode == 0
    assert b"torch.nn.BatchNorm2d(4)" in run.stdout
    assert run.stderr == b""


def test_no_arguments_print_the_help(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(monkeypatch, capsys)
    assert (code, err) == (2, "")
    assert "Usage: normkit" in out


def test_errors_of_the_library_name_options() -> None:
    options = {"batch_size": "--batch-size", "norms": "--norm"}
    assert name_options("`batch_size` must be 1 or more", options) == "--batch-size must be 1 or more"
    assert name_options("use `batch_size=12`, drop `norms=batch`", options) == "use --batch-size 12, drop --norm batch"
    assert name_options("`other=1` and `a b` stay", options) == "`other=1` and `a b` stay"


def test_paragraphs_are_joined_and_examples_are_not() -> None:
    assert (
        reflow("One\n    two.\n\n        code\n        more\n\n    Three.\n    ")
        == "One two.\n\n    code\n    more\n\nThree."
    )
    assert reflow(None) is None
