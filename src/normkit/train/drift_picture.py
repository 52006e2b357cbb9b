"""The differences from torch.nn over the steps, each beside its tolerance."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from normkit.train import style
from normkit.train.quantities import QUANTITIES, Quantity
from normkit.train.report import png, tidy
from normkit.train.results import NormResult

LEAST: Final = 1e-9
"""What is drawn for a difference of zero, or of less than float32 carries."""
MOST: Final = 1e3
"""What is drawn for a difference of more, or one that is not a number."""
TOLERANCE: Final[dict[str, Any]] = {"color": "#444444", "linestyle": "--", "linewidth": 1}


def drift_picture(results: Sequence[NormResult], colours: Mapping[str, str]) -> bytes:
    """Draw a panel for each quantity that was compared, as PNG.

    Args:
        results: The contenders that were compared.
        colours: Their colours, by label.
    """
    quantities = [q for q in QUANTITIES if any(row.of(q.name) for result in results for row in result.differences)]
    figure = Figure(figsize=(3.2 * len(quantities) + 0.8, 4.2), layout="constrained")
    figure.suptitle("Difference from torch.nn's layers on the same weights, statistics and images, relative")
    grid = figure.subplots(1, len(quantities), sharey=True, squeeze=False)[0]
    for axes, quantity in zip(grid, quantities, strict=True):
        for result in results:
            _draw(axes, result, quantity, colours[result.label])
        axes.axhline(quantity.tolerance, **TOLERANCE)
        axes.set(yscale="log", ylim=(LEAST / 2, MOST * 2), title=quantity.title, xlabel="step")
        tidy(axes)
    grid[0].set_ylabel("largest relative difference")
    lines = [Line2D([], [], color=colours[result.label]) for result in results]
    ring: dict[str, Any] = {"marker": "o", "fillstyle": "none", "color": "black", "linestyle": "none"}
    handles = [*lines, Line2D([], [], **TOLERANCE), Line2D([], [], **ring)]
    names = [style.title(result) for result in results]
    names += ["tolerance: rounding stays below", "first step beyond it"]
    figure.legend(handles, names, loc="outside lower center", ncols=len(handles), frameon=False)
    return png(figure)


def _draw(axes: Axes, result: NormResult, quantity: Quantity, colour: str) -> None:
    points = [(row.step, found.value) for row in result.differences if (found := row.of(quantity.name)) is not None]
    if not points:
        return
    steps = [step for step, _ in points]
    heights = [MOST if math.isnan(value) else min(max(value, LEAST), MOST) for _, value in points]
    few: dict[str, Any] = {"marker": "o", "markersize": 3} if len(points) < 30 else {}
    axes.plot(steps, heights, color=colour, linewidth=1, **few)
    first = next((i for i, (_, value) in enumerate(points) if quantity.exceeded_by(value)), None)
    if first is not None:
        axes.plot(steps[first], heights[first], marker="o", markersize=9, fillstyle="none", color=colour)
        axes.annotate(
            f"step {steps[first]:,}",
            (steps[first], heights[first]),
            xytext=(7, 7),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8},
        )
