"""The help screens, and the one way in which all commands say what is wrong with a command line."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple, NoReturn

import pytest
from typer.main import get_command

from normkit.bench.environment import REGIMES
from normkit.bench.table import MODEL_NAMES
from normkit.checking.families import CONVENTIONS as CHECKED_CONVENTIONS
from normkit.checking.families import FAMILIES
from normkit.cli import main
from normkit.cli.app import app
from normkit.cli.plain import name_options, reflow
from normkit.conventions import CONVENTIONS
from normkit.explaining import KINDS
from normkit.explaining.words import LANGUAGES
from normkit.model.convert.change import ALREADY
from normkit.model.recalibrate.run import MODES
from normkit.train.config import DIGITS, FASHION, IMPLS, NORMS

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
        (["tarin"], "No such command 'tarin'. Did you mean 'train'? See normkit --help"),
        (["bench", "times", "--regime", "retaned"], "did you mean retained?"),
        (["bench", "times", "--model", "mobilnet"], "did you mean mobilenet?"),
        (["check", "--explain", "wrong-axis"], "did you mean wrong-axes?"),
        (["conventions", "kears"], "did you mean keras?"),
        (["conventions", "--format", "jsno"], "did you mean json?"),
        (["explain", "bacth"], "did you mean batch?"),
        (["train", "--norm", "btach"], "did you mean batch?"),
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


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("train --norm ", NORMS),
        ("train --impl ", IMPLS),
        ("train --data ", (DIGITS, FASHION)),
        ("bench times --regime ", (*REGIMES, "both")),
        ("bench times --model ", MODEL_NAMES),
        ("convert net.py:build --to ", ALREADY),
        ("check --as ", FAMILIES),
        ("check --convention ", CHECKED_CONVENTIONS),
        ("check --format ", ("text", "json", "github")),
        ("conventions ", CONVENTIONS),
        ("explain ", KINDS),
        ("explain --lang ", LANGUAGES),
        ("fold net.py:build --into ", ("previous", "next", "both")),
        ("port x.npz --source ", CONVENTIONS),
        ("recalibrate net.py:build --mode ", MODES),
        ("conventions --format ", ("table", "json")),
        ("conventions --format j", ("json",)),
    ],
)
def test_a_shell_completes_the_values_of_an_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, values: Iterable[str]
) -> None:
    words = f"normkit {line}"
    monkeypatch.setenv("_NORMKIT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert set(run(monkeypatch, capsys).out.split()) == set(values)


def parameters(command: Any) -> Iterator[Any]:
    """All parameters of a command and of those in it."""
    yield from command.params
    for inner in getattr(command, "commands", {}).values():
        yield from parameters(inner)


def test_every_option_with_a_list_of_words_completes_them() -> None:
    listed = [one for one in parameters(get_command(app)) if re.search(r"[a-z0-9]\|", one.metavar or "")]
    assert len(listed) > 20
    for one in listed:
        words = [word for word in one.metavar.split("|") if word.islower()]
        assert [item.value for item in one.shell_complete(None, "")] == words, one.name


@pytest.mark.parametrize("says", ["print('x')", "typer.echo('x')", "console.out.print('x')"])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(says: str) -> None:
    program = f"""
import typer, normkit.cli.app
from normkit.cli import console, main
normkit.cli.app.app = lambda **_: {says}
input()
main()
"""
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}  # as a shell's pipe is
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stderr.read() == ""


def test_ctrl_c_while_modules_are_loaded_is_one_word() -> None:
    program = """
import importlib.abc, sys
class Interrupt(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "normkit.cli.app":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
sys.argv = ["normkit", "conventions"]
from normkit.cli import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_traceback_has_a_place_where_no_file_can_be_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    def fail(*_: object) -> NoReturn:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("tempfile.mkstemp", full)
    monkeypatch.setattr("normkit.conventions.rows", fail)
    code, _, err = run(monkeypatch, capsys, "conventions")
    assert code == 3
    assert err.startswith("error: normkit's own code failed (ZeroDivisionError: here); please report it at https://")
    assert err.rstrip().endswith("ZeroDivisionError: here")
