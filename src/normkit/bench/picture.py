"""Bar charts of times."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normkit.bench.cases import EVALUATION
from normkit.bench.contenders import COMPILED, LABELS, OURS, TORCH
from normkit.bench.results import Result

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS: Final = {OURS: "#0072B2", TORCH: "#E69F00", COMPILED: "#CC79A7"}
SHORT: Final = {"default": "default process", "retained": "memory retained"}
DPI: Final = 110
MAX_CASES: Final = 24
MAX_COPIES: Final = 30.0
"""Length at which a bar is cut off, so that the shorter ones stay apart."""


def draw(results: Sequence[Result], cpu: str, path: Path) -> None:
    """Write a bar chart: a row of panels for each regime, a panel for each pass.

    Times are drawn in copies of the input where there are such results, else in milliseconds. More cases than fit are
    reduced to those with a target of their own.
    """
    shown = [result for result in results if result.in_copies(OURS) is not None] or results
    if len({result.row.case.name for result in shown}) > MAX_CASES:
        shown = [result for result in shown if result.row.case.headline] or shown
    passes = list(dict.fromkeys(result.row.pass_ for result in shown))
    if len(passes) > 2:  # evaluation does the work of a forward pass
        passes.remove(EVALUATION)
    regimes = list(dict.fromkeys(result.regime for result in shown))
    cases = list(dict.fromkeys(result.row.case.name for result in shown))
    size = (3.4 + 3.8 * len(passes), 0.5 + (1.2 + 0.36 * len(cases)) * len(regimes))
    figure = Figure(figsize=size, layout="constrained")
    figure.suptitle(f"normkit and torch.nn, float32 unless said: {cpu}, {shown[0].threads} threads")
    grid = figure.subplots(len(regimes), len(passes), squeeze=False, sharey=True)
    for row, regime in enumerate(regimes):
        for column, pass_ in enumerate(passes):
            axes = grid[row, column]
            _panel(axes, cases, [result for result in shown if (result.regime, result.row.pass_) == (regime, pass_)])
            axes.set_title(f"{pass_}, {SHORT[regime]}", fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=DPI)


def _panel(axes: Axes, cases: Sequence[str], results: Sequence[Result]) -> None:
    """Draw the bars of each case."""
    names = [name for name in COLOURS if any(name in result.timings for result in results)]
    height = 0.8 / max(1, len(names))
    for number, name in enumerate(names):
        rows = [result for result in results if name in result.timings]
        lengths = [result.in_copies(name) or 1e3 * result.timings[name].median for result in rows]
        longest = MAX_COPIES if rows[0].in_copies(name) else max(lengths)
        positions = [cases.index(result.row.case.name) + (number - (len(names) - 1) / 2) * height for result in rows]
        cut = [min(length, longest) for length in lengths]
        bars = axes.barh(positions, cut, height * 0.92, color=COLOURS[name], label=LABELS[name])
        labels = [_number(length) + (" →" if length > longest else "") for length in lengths]
        axes.bar_label(bars, labels, fontsize=7, padding=2)
    in_copies = any(result.in_copies(OURS) for result in results)
    if in_copies:
        axes.axvline(results[0].copies, color="black", linestyle="--", linewidth=1, label="a copy of the same bytes")
    axes.set_yticks(range(len(cases)), [case.replace(" float32", "") for case in cases], fontsize=8)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.margins(x=0.14)
    axes.set_xlabel("time, relative to a copy of the input" if in_copies else "milliseconds")
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 999.5 else f"{value:,.0f}"
