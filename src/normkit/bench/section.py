"""The result of every benchmark: tables that print on a terminal and in Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from normkit.bench.progress import Progress


@dataclass(frozen=True)
class Section:
    """A table with a title and notes below it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def to_markdown(self) -> str:
        """Return the section as Markdown, all columns but the first aligned to the right."""
        rule = "|".join(("---", *["---:"] * (len(self.columns) - 1)))
        lines = [f"## {self.title}", "", _line(self.columns), f"|{rule}|", *map(_line, self.rows), ""]
        for note in self.notes:
            lines += [note, ""]
        return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


class Benchmark(Protocol):
    """One question: run it, then ask for its results. An interrupted run keeps the results so far."""

    @property
    def environment(self) -> dict[str, str]:
        """The machine and the versions of the measurement."""

    def run(self, progress: Progress) -> None:
        """Measure."""

    def sections(self) -> list[Section]:
        """Return the results as tables."""

    def to_json(self) -> dict[str, Any]:
        """Return the results in plain JSON types."""


def reached(passed: bool | None) -> str:  # noqa: FBT001
    """Return the verdict on a target, for people; nothing where there is none."""
    return "" if passed is None else "reached" if passed else "missed"


def duration(seconds: float) -> str:
    """Return seconds as text, in the unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1.0 or unit == "µs":
            break
    return f"{seconds * factor:.3g} {unit}" if seconds * factor < 999.5 else f"{seconds * factor:.0f} {unit}"
