"""Results as tables, for the terminal and for Markdown."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from normkit.bench.cases import KEPT, LARGE_BYTES, THREADS_OF_BARS
from normkit.bench.contenders import COPY, OURS, TORCH
from normkit.bench.environment import REGIMES
from normkit.bench.measure import Timing, geometric_mean
from normkit.bench.results import Measurements, Result


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


def sections(measurements: Measurements) -> list[Section]:
    """A table for each regime."""
    return [
        _section(regime, [result for result in measurements.results if result.regime == regime])
        for regime in measurements.regimes
    ]


def _section(regime: str, results: Sequence[Result]) -> Section:
    compiled = any(result.compiled_ratio is not None for result in results)
    columns = ["case", "pass", "ours", "torch.nn", "torch/ours", "bar", "verdict", "in copies"]
    if compiled:
        columns.insert(5, "compiled/ours")
    rows = []
    for result in results:
        cells = [
            result.row.case.name,
            result.row.measured,
            time_text(result.timings[OURS]),
            time_text(result.timings[TORCH]),
            f"{result.ratio:.2f}",
            f"{result.bar:g}",
            verdict(result),
            _copies_text(result),
        ]
        if compiled:
            cells.insert(5, "" if result.compiled_ratio is None else f"{result.compiled_ratio:.2f}")
        rows.append(tuple(cells))
    return Section(f"Times with {REGIMES[regime]}", tuple(columns), tuple(rows), tuple(_notes(regime, results)))


def verdict(result: Result) -> str:
    """Pass or miss, and whether torch.nn is faster."""
    words = [] if result.passed is None else ["pass" if result.passed else "MISS"]
    if result.ratio < 1.0:
        words.append("slower")
    return ", ".join(words)


def time_text(timing: Timing) -> str:
    """A median and its spread."""
    return f"{duration(timing.median)} ±{100 * timing.spread:.0f}%"


def duration(seconds: float) -> str:
    """Seconds in the unit that suits them."""
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("µs", 1e6)):
        if seconds * factor >= 1.0 or unit == "µs":
            break
    return f"{seconds * factor:.3g} {unit}" if seconds * factor < 999.5 else f"{seconds * factor:.0f} {unit}"


def _copies_text(result: Result) -> str:
    ours, torchs = result.in_copies(OURS), result.in_copies(TORCH)
    return "" if ours is None or torchs is None else f"{ours:.1f} / {torchs:.1f}"


def _notes(regime: str, results: Sequence[Result]) -> Iterable[str]:
    slower = sum(result.ratio < 1.0 for result in results)
    ratios = [result.ratio for result in results]
    yield (
        f"torch.nn is faster in {slower} of {len(results)} rows; torch.nn's time is {geometric_mean(ratios):.2f} times "
        f"ours in the geometric mean, {min(ratios):.2f} at the least and {max(ratios):.2f} at the most."
    )
    judged = [result for result in results if result.passed is not None]
    if judged:
        missed = sum(not result.passed for result in judged)
        yield f"{len(judged) - missed} of {len(judged)} rows reach their bar, {missed} miss it."
    else:
        yield f"The bars are those for {THREADS_OF_BARS} threads, so there is no verdict."
    if any(COPY in result.timings for result in results):
        yield (
            "Times are medians, ± half the distance between the quartiles. A copy is y.copy_(x) into a tensor that "
            "exists, timed in turn with the row; the last column is ours / torch.nn's in such copies, and the least that "
            "must be moved is 1 copy, with backward 2.5."
        )
    if regime != KEPT:
        yield f"Bars here: as fast as torch.nn (0.9 allows for noise), and twice that over {LARGE_BYTES // 10**6} MB."


def environment_lines(measurements: Measurements) -> list[str]:
    """On what it was measured, a line a fact."""
    return [f"{name}: {value}" for name, value in measurements.environment.items()]
