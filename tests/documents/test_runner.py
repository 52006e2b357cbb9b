"""The tests of the documents can fail: each thing that a page may get wrong is found, and its line is named."""

from pathlib import Path

import pytest

from tests.documents.blocks import parse
from tests.documents.running import PageError, commands, run_console, run_python
from tests.documents.test_blocks import faults

PASSES = {
    "one namespace": "```python\nx = 1\n```\n\n```python\nassert x == 1\n```",
    "not run": "<!-- not run: it fails -->\n```python\n1 / 0\n```",
    "a quotation of the source": "```python\n# src/normkit/spec.py\n1 / 0\n```",
    "raises": "<!-- raises -->\n\n```python\n1 / 0\n```\n```text\nZeroDivisionError:\n  division   by zero\n```",
    "a file of the page": "```python\n# made.py\nx = 3\n```\n```python\nfrom made import x as y\nassert y == 3\n```",
    "output": "```console\n$ echo one; echo two; echo three  # a comment\none\n...\n  three\n```",
    "a command of two lines": "```console\n$ echo one \\\n  two\none two\n```",
    "a file in a command": "```python\n# made.py\nprint(3)\n```\n```console\n$ python made.py\n3\n```",
    "examples": "```console\n$ ls examples\ntextbook.py\n```",
    "exit status 1": "```console\n$ false\n```",
    "another exit status": "<!-- exit: 3 -->\n```console\n$ exit 3\n```",
    "numbers vary": "<!-- numbers vary -->\n```console\n$ echo took 12.5 s, 1e-05\ntook 9 s, 3.25e+7\n```",
    "whole output": "<!-- whole output -->\n```console\n$ echo one; echo two\none\n  two\n```",
    "in a list": "- item\n\n  <!-- exit: 3 -->\n  ```console\n  $ exit 3\n  ```",
}
FAILS = {
    "an error": ("```python\nx = 1\n1 / 0\n```", r"page.md:2: the block raises\n(?s:.*)line 3(?s:.*)ZeroDivisionError"),
    "no error": ("<!-- raises -->\n```python\n1\n```\n```text\nx\n```", "page.md:3: the block is to raise an error"),
    "another error": (
        "<!-- raises -->\n```python\n1 / 0\n```\n```text\nValueError\n```",
        "page.md:6: shows\n  ValueError",
    ),
    "an error without its message": ("<!-- raises -->\n```python\n1 / 0\n```", "page.md:3: .* with the message"),
    "a lost mark": ("<!-- not run: x -->\n\nwords\n\n```python\n1 / 0\n```", "ZeroDivisionError"),
    "other output": (
        "```console\n$ echo one\ntwo\n```",
        r"page.md:2: \$ echo one\nline 3 of the page is not in the output",
    ),
    "another order": ("```console\n$ echo one; echo two\ntwo\none\n```", "line 4 of the page is not in the output"),
    "other numbers": ("```console\n$ echo 12\n13\n```", "line 3 of the page is not in the output"),
    "not the whole output": (
        "<!-- whole output -->\n```console\n$ echo 1; echo 2\n1\n```",
        "page.md:3: .*\nthe page does not",
    ),
    "exit status 2": ("```console\n$ exit 2\n```", "exit status 2, expected 0 or 1"),
    "not the exit status": ("<!-- exit: 2 -->\n```console\n$ true\n```", "exit status 0, expected 2"),
    "no command": ("```console\nls\n```", "page.md:2: a console block begins with a command"),
}
UNCONVENTIONAL = {
    "```sh\nls\n```": "page.md:2: commands stand in",
    "words\n\n    ls\n": "page.md:3: commands stand in",
    "<!-- rasies -->\n```python\n1\n```": "page.md:3: <!-- rasies --> is no mark",
    "<!-- not run -->\n```python\n1\n```": "page.md:3: <!-- not run --> gives no reason",
}


def run(text: str, folder: Path, *, slow: bool = False) -> None:
    blocks = list(parse(text, "page.md"))
    run_python(blocks, folder, slow=slow)
    run_console(blocks, folder, slow=slow)


@pytest.mark.parametrize("text", PASSES.values(), ids=PASSES)
def test_right_pages_pass(text: str, folder: Path) -> None:
    run(text, folder)


@pytest.mark.parametrize(("text", "message"), FAILS.values(), ids=FAILS)
def test_wrong_pages_fail(text: str, message: str, folder: Path) -> None:
    with pytest.raises(PageError, match=message):
        run(text, folder)


@pytest.mark.parametrize("text", ["<!-- slow -->\n```python\n1 / 0\n```", "<!-- slow -->\n```console\n$ exit 2\n```"])
def test_slow_blocks_run_in_the_slow_tests(text: str, folder: Path) -> None:
    run(text, folder)
    with pytest.raises(PageError):
        run(text, folder, slow=True)


@pytest.mark.parametrize(("text", "fault"), UNCONVENTIONAL.items())
def test_conventions(text: str, fault: str) -> None:
    (found,) = faults(list(parse(text, "page.md")))
    assert found.startswith(fault)


def test_commands_of_a_block() -> None:
    (block,) = parse("```console\n$ a \\\n  b\nout\n$ c\n```", "page.md")
    found = [(command.line, command.text, command.shown) for command in commands(block)]
    assert found == [(2, "a \\\n  b", [(4, "out")]), (5, "c", [])]
