"""Run the blocks of a page: Python in one namespace, commands in one directory."""

import os
import re
import subprocess
import sys
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Final

from tests.documents.blocks import ROOT, Block

SECONDS: Final = 240  # that a command may take

_NUMBER: Final = re.compile(r"\d[\d.,]*(e[+-]?\d+)?")
_COLOR: Final = re.compile(r"\x1b\[[0-9;]*m")
_LEFT_OUT: Final = {
    *("FORCE_COLOR", "PY_COLORS", "GITHUB_ACTIONS"),  # make commands print for a terminal
    *("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG"),  # half as much time again, to cover what other tests cover
}


class PageError(AssertionError):
    """What a page shows is not what happens."""


def run_python(blocks: Sequence[Block], folder: Path, *, slow: bool) -> None:
    """Run the Python blocks of a page from top to bottom; those that define a file are written to `folder` too."""
    module = ModuleType("page")
    sys.modules["page"] = module  # where pickle and dataclasses look for what a block defines
    try:
        for number, block in enumerate(blocks):
            _write(block, folder)
            if block.language == "python" and block.runs(slow=slow):
                _run_block(block, blocks[number + 1 :], module)
    finally:
        for name, loaded in list(sys.modules.items()):
            if loaded is module or str(getattr(loaded, "__file__", None)).startswith(str(folder)):
                del sys.modules[name]


def run_console(blocks: Sequence[Block], folder: Path, *, slow: bool) -> None:
    """Run the commands of a page from top to bottom, and hold what they print against what the page shows."""
    for block in blocks:
        _write(block, folder)
        if block.language == "console" and block.runs(slow=slow):
            for command in commands(block):
                _run_command(command, block, folder)


def environment() -> dict[str, str]:
    """What commands and scripts run in."""
    kept = {name: value for name, value in os.environ.items() if name not in _LEFT_OUT}
    return kept | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "NO_COLOR": "1",
        "LC_ALL": "C.UTF-8",
    }


@dataclass
class Command:
    line: int
    text: str
    shown: list[tuple[int, str]] = field(default_factory=list)  # lines of output, by their number


def commands(block: Block) -> Iterator[Command]:
    command: Command | None = None
    for number, line in enumerate(block.code.splitlines(), block.line):
        if line.startswith("$ "):
            if command:
                yield command
            command = Command(number, line[2:])
        elif command is None:
            raise PageError(
                f"{block.page}:{number}: a console block begins with a command, `$ …`, and not with {line!r}"
            )
        elif command.text.endswith("\\") and not command.shown:
            command.text += f"\n{line}"
        else:
            command.shown.append((number, line))
    if command:
        yield command


def _write(block: Block, folder: Path) -> None:
    if block.file:
        (folder / block.file).write_text(block.code)


def _run_block(block: Block, following: Sequence[Block], module: ModuleType) -> None:
    code = "\n" * (block.line - 1) + block.code  # so that a traceback has the page's line numbers
    try:
        exec(compile(code, str(ROOT / block.page), "exec"), module.__dict__)
    except Exception as error:
        if "raises" not in block.marks:
            raise PageError(f"{block.place}: the block raises\n{_traceback(error)}") from None
        _compare_message(f"{type(error).__name__}: {error}", block, following)
    else:
        if "raises" in block.marks:
            raise PageError(f"{block.place}: the block is to raise an error, and raises none")


def _traceback(error: Exception) -> str:
    """The frames of the page and below: the first frame is the one that called exec."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    return "".join(traceback.format_exception(error.with_traceback(own)))


def _compare_message(message: str, block: Block, following: Sequence[Block]) -> None:
    shown = next((other for other in following if other.language == "text"), None)
    if shown is None:
        raise PageError(
            f"{block.place}: a block that raises is followed by a ```text block with the message:\n{message}"
        )
    for number, line in enumerate(shown.code.splitlines(), shown.line):
        if _squeeze(line) not in _squeeze(message):
            raise PageError(f"{shown.page}:{number}: shows\n  {line}\nbut the block of {block.place} raised\n{message}")


def _run_command(command: Command, block: Block, folder: Path) -> None:
    place = f"{block.page}:{command.line}: $ {command.text}"
    try:
        done = subprocess.run(
            ["bash", "-c", command.text],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PageError(f"{place}\ntook more than {SECONDS} s") from None
    output = _COLOR.sub("", done.stdout)
    expected = {int(block.marks["exit"])} if "exit" in block.marks else {0, 1}
    if done.returncode not in expected:
        wanted = " or ".join(map(str, sorted(expected)))
        raise PageError(f"{place}\nexit status {done.returncode}, expected {wanted}; it printed\n{output}")
    _compare_output(command, output, block, place)


def _compare_output(command: Command, output: str, block: Block, place: str) -> None:
    normalize = _without_numbers if "numbers vary" in block.marks else _squeeze
    rest = normalize(output)
    if "whole output" in block.marks and rest != normalize("\n".join(line for _, line in command.shown)):
        raise PageError(f"{place}\nthe page does not show the whole output, or shows more; it printed\n{output}")
    for number, line in command.shown:
        if line.strip() in ("", "..."):
            continue
        _, found, rest = rest.partition(normalize(line))
        if not found:
            raise PageError(
                f"{place}\nline {number} of the page is not in the output, or not in this order:\n  {line}\n"
                f"it printed\n{output}"
            )


def _squeeze(text: str) -> str:
    return " ".join(text.split())


def _without_numbers(text: str) -> str:
    return _NUMBER.sub("#", _squeeze(text))
