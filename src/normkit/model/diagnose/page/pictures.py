"""Plots of a diagnosis as SVG, in the colours of the page that they stand in."""

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from normkit.model.diagnose.report import Layer

# Colours that Matplotlib writes, and the page's own that take their place: it has two of each, for light and dark.
_COLOURS: Final = {"#010101": "--text", "#020202": "--soft", "#030303": "--running", "#040404": "--batch"}
_TEXT, _SOFT, _RUNNING, _BATCH = _COLOURS
_TO_PAGE: Final = (
    (r'^<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 xmlns:xlink="http://www.w3.org/1999/xlink" role="img">'),
    (r"<metadata>.*?</metadata>", ""),
    (r'<g id="[^"]*">', "<g>"),  # each figure has the same
    (r"<style[^>]*>.*?</style>", ""),  # it would hold for the whole page
    (r"font: ([\d.]+px) [^;\"]*", r"font-size: \1"),
    (r"font-family: [^;\"]*;? ?", ""),
)
_MOST_CHANNELS: Final = 256
_NAMED: Final = 24
"""Up to so many layers have their names below the plot of all; of more, some have."""


def depth(layers: Sequence[Layer]) -> str:
    """Draw each layer's part in the gap, in the order in which they run."""
    with _axes(8.4, 3.6) as (figure, ax):
        places = np.arange(len(layers))
        alone, left = (_capped([getattr(layer, name) for layer in layers]) for name in ("alone", "cumulative"))
        ax.bar(places, alone, color=_BATCH, width=0.6, label="output moves by, in training form alone")
        ax.plot(
            places,
            left,
            "o-",
            color=_RUNNING,
            markersize=4,
            label="gap left, in training form up to it",
        )
        step = -(-len(layers) // _NAMED)
        ax.set_xticks(places[::step], [layer.name or "model" for layer in layers[::step]], rotation=60, ha="right")
        ax.set_ylabel("standard deviations\nof the outputs")
        ax.set_ylim(bottom=0)
        _legend(ax)
        return _svg(figure)


def means(layer: Layer) -> str:
    """Draw the running mean of each channel against that of the batches."""
    return _against(layer.curves.batch_mean, layer.curves.running_mean, "mean")


def stds(layer: Layer) -> str:
    """Draw the running standard deviation of each channel against that of the batches."""
    return _against(layer.curves.batch_std, layer.curves.running_std, "std")


def histograms(layer: Layer) -> str:
    """Draw how normalized values lie, by running and by batch statistics."""
    with _axes(3.2, 2.8) as (figure, ax):
        for counts, colour, name in (
            (layer.curves.by_batch, _BATCH, "training form"),
            (layer.curves.by_running, _RUNNING, "evaluation form"),
        ):
            ax.stairs(counts, layer.curves.edges, color=colour, linewidth=1.6, label=name)
        ax.set_xlabel("normalized value")
        ax.set_ylabel("share")
        ax.set_ylim(bottom=0)
        _legend(ax)
        return _svg(figure)


def _against(batch: Sequence[float], running: Sequence[float], name: str) -> str:
    pairs = [pair for pair in zip(batch, running, strict=True) if all(map(math.isfinite, pair))]
    pairs = pairs[:: -(-len(pairs) // _MOST_CHANNELS)] if pairs else []
    with _axes(3.2, 2.8) as (figure, ax):
        if pairs:
            ends = (min(map(min, pairs)), max(map(max, pairs)))
            ax.plot(ends, ends, "--", color=_SOFT, linewidth=1.0)
            ax.plot(*zip(*pairs, strict=True), "o", color=_RUNNING, markersize=3.5, alpha=0.8)
        ax.set_xlabel(f"{name} of the batches")
        ax.set_ylabel(f"running {name}")
        return _svg(figure)


@contextmanager
def _axes(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "normkit",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": _TEXT,
        "axes.labelcolor": _TEXT,
        "axes.edgecolor": _SOFT,
        "xtick.color": _SOFT,
        "ytick.color": _SOFT,
        "xtick.labelcolor": _TEXT,
        "ytick.labelcolor": _TEXT,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.subplots()


def _legend(ax: Axes) -> None:
    """Put the legend above the plot."""
    ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)


def _capped(values: Sequence[float]) -> list[float]:
    """Return values with infinite ones as large as the largest finite one."""
    top = max((value for value in values if math.isfinite(value)), default=1.0)
    return [value if math.isfinite(value) else top for value in values]


def _svg(figure: Figure) -> str:
    """Return a figure as an element of a page: its size, its fonts and its colours are the page's."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    for pattern, instead in _TO_PAGE:
        text = re.sub(pattern, instead, text, flags=re.DOTALL)
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, f"var({variable})")
    return text
