"""Pictures of results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normkit.bench.cases import PASSES, ModelCase
from normkit.bench.contenders import COMPILED, OURS, TORCH
from normkit.bench.results import Result

# Okabe and Ito's colours, which stay apart for colour-blind readers.
COLOURS: Final = {OURS: "#0072B2", TORCH: "#E69F00", COMPILED: "#CC79A7"}
LABELS: Final = {OURS: "normkit", TORCH: "torch.nn", COMPILED: "torch.compile of torch.nn"}
SHORT: Final = {"default": "default process", "kept": "memory kept"}
DPI: Final = 110
MOST_CASES: Final = 24


def draw(results: Sequence[Result], cpu: str, path: Path) -> None:
    """Write a bar chart: a row of panels for each regime, a panel for each pass.

    More cases than fit are reduced to those with a bar of their own.
    """
    norms = [result for result in results if not isinstance(result.row.case, ModelCase)]
    shown = norms or results
    if len({result.row.case.name for result in shown}) > MOST_CASES:
        shown = [result for result in shown if result.row.case.headline] or shown
    regimes = list(dict.fromkeys(result.regime for result in shown))
    passes = [one for one in PASSES if any(r.row.measured == one for r in shown)] or [shown[0].row.measured]
    cases = list(dict.fromkeys(result.row.case.name for result in shown))
    figure = Figure(figsize=(4.2 + 4.0 * len(passes), (1.4 + 0.42 * len(cases)) * len(regimes)), layout="constrained")
    threads = ", ".join(sorted({f"{result.threads} threads" for result in shown}))
    figure.suptitle(f"{cpu}, {threads}")
    grid = figure.subplots(len(regimes), len(passes), squeeze=False, sharey=True)
    for line, regime in enumerate(regimes):
        for column, measured in enumerate(passes):
            here = [result for result in shown if (result.regime, result.row.measured) == (regime, measured)]
            axes = grid[line, column]
            _panel(axes, cases, here)
            axes.set_title(f"{measured}, {SHORT[regime]}", fontsize=10)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, dpi=DPI)


def _panel(axes: Axes, cases: Sequence[str], results: Sequence[Result]) -> None:
    """Bars of each case: copies of its input, or milliseconds where there is no copy."""
    names = [name for name in COLOURS if any(name in result.timings for result in results)]
    height = 0.8 / max(1, len(names))
    in_copies = all(result.copies for result in results)
    for number, name in enumerate(names):
        rows = [result for result in results if name in result.timings]
        lengths = [result.in_copies(name) or 1e3 * result.timings[name].median for result in rows]
        places = [cases.index(result.row.case.name) + (number - (len(names) - 1) / 2) * height for result in rows]
        bars = axes.barh(places, lengths, height * 0.92, color=COLOURS[name], label=LABELS[name])
        axes.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
    if in_copies and results:
        axes.axvline(results[0].copies, color="black", linestyle="--", linewidth=1, label="least possible")
    axes.set_yticks(range(len(cases)), cases, fontsize=8)
    axes.set_ylim(len(cases) - 0.4, -0.6)
    axes.margins(x=0.12)
    axes.set_xlabel("time, in copies of the input" if in_copies else "milliseconds")
    axes.grid(axis="x", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
