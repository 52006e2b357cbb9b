"""Every block of the README and the docs runs and prints what the page shows. CONTRIBUTING.md has the conventions."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.documents.blocks import MARKS, Block, blocks_of, pages
from tests.documents.running import PageError, run_console, run_python

RUNNERS: dict[str, Callable[..., None]] = {"python": run_python, "console": run_console}
SHELLS = {"", "bash", "sh", "shell", "zsh"}


def items() -> Iterator[Any]:
    """One item for each page and kind of block; a second one, slow, where slow blocks are among them."""
    for page in pages():
        blocks = blocks_of(page)
        for kind in RUNNERS:
            fast, all_ = ([b for b in blocks if b.language == kind and b.runs(slow=slow)] for slow in (False, True))
            if fast:
                yield pytest.param(page, kind, False, id=f"{page}-{kind}")
            if len(all_) > len(fast):
                marks = [pytest.mark.slow, pytest.mark.timeout(1800)]
                yield pytest.param(page, kind, True, id=f"{page}-{kind}-slow", marks=marks)


@pytest.mark.parametrize(("page", "kind", "slow"), list(items()))
def test_blocks_do_what_the_page_says(page: str, kind: str, slow: bool, folder: Path) -> None:
    try:
        RUNNERS[kind](blocks_of(page), folder, slow=slow)
    except PageError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def wrong(block: Block) -> Iterator[str]:
    """What breaks the conventions of a block."""
    if block.language in SHELLS:
        yield "commands stand in a ```console block and begin with `$ `, formulas and plain text in a ```text block"
    yield from (f"<!-- {mark} --> is no mark: {', '.join(MARKS)}" for mark in block.marks if mark not in MARKS)
    if block.marks.get("not run") == "":
        yield "<!-- not run --> gives no reason: <!-- not run: REASON -->"


def faults(blocks: Sequence[Block]) -> list[str]:
    return [f"{block.place}: {fault}" for block in blocks for fault in wrong(block)]


@pytest.mark.parametrize("page", pages())
def test_blocks_follow_the_conventions(page: str) -> None:
    found = faults(blocks_of(page))
    assert not found, "\n".join(["", *found])
