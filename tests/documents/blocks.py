"""The code blocks of a Markdown page, and what the comments before them ask for."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt

ROOT: Final = Path(__file__).parents[2]
MARKS: Final = ("raises", "not run", "slow", "exit", "numbers vary", "whole output")

_COMMENT: Final = re.compile(r"<!--\s*(.*?)\s*-->", re.DOTALL)
_FILE: Final = re.compile(r"# (\w+\.py)$")
_QUOTE: Final = re.compile(r"# (src/\S+)$")


@dataclass(frozen=True)
class Block:
    page: str
    line: int  # of its first line of code
    language: str
    code: str
    marks: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def file(self) -> str | None:
        """The file that the block defines: ``# file.py`` is its first line."""
        return self._first_line(_FILE)

    @property
    def source(self) -> str | None:
        """The file that the block quotes: ``# src/…`` is its first line."""
        return self._first_line(_QUOTE)

    def runs(self, *, slow: bool) -> bool:
        return "not run" not in self.marks and not self.source and (slow or "slow" not in self.marks)

    def _first_line(self, pattern: re.Pattern[str]) -> str | None:
        first = pattern.match(self.code.partition("\n")[0]) if self.language == "python" else None
        return first[1] if first else None


def pages() -> list[str]:
    """The pages that are written; a translation holds the blocks of its original (test_translations.py)."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [path.relative_to(ROOT).as_posix() for path in found if ".zh" not in path.name]


def blocks_of(page: str) -> list[Block]:
    return list(parse((ROOT / page).read_text(), page))


def parse(text: str, page: str) -> Iterator[Block]:
    """Every block of code, an indented one too: its language is then empty."""
    marks: dict[str, str] = {}
    for token in MarkdownIt().parse(text):
        if token.type == "html_block":
            marks |= dict(_mark(comment) for comment in _COMMENT.findall(token.content))
            continue
        if token.type in ("fence", "code_block"):
            assert token.map is not None
            line = token.map[0] + (2 if token.type == "fence" else 1)
            yield Block(page, line, token.info.strip(), token.content, marks)
        marks = {}


def _mark(comment: str) -> tuple[str, str]:
    name, _, value = comment.partition(":")
    return name.strip(), value.strip()
