"""What every benchmark hands back: tables that print on a terminal and in Markdown, and as JSON."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from normkit.bench.progress import Progress


@dataclass(frozen=True)
class Section:
    """A table with a title, and what to say below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """The section as Markdown, its numbers to the right."""
        rule = "|".join(("---", *["---:"] * (len(self.columns) - 1)))
        lines = [f"## {self.title}", "", _line(self.columns), f"|{rule}|", *map(_line, self.rows), ""]
        for note in self.notes:
            lines += [note, ""]
        return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


class Benchmark(Protocol):
    """One question: run it, then ask for what it found. An interrupted run keeps what it found so far."""

    @property
    def environment(self) -> dict[str, str]:
        """Where it is measured."""

    def run(self, progress: Progress) -> None:
        """Measure."""

    def sections(self) -> list[Section]:
        """What was found, as tables."""

    def to_json(self) -> dict[str, Any]:
        """What was found, in plain types."""


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1.0 or unit == "µs":
            break
    return f"{seconds * factor:.3g} {unit}" if seconds * factor < 999.5 else f"{seconds * factor:.0f} {unit}"
