"""Pictures and tables of a run, drawn from its records alone."""

import csv
import io
from collections.abc import Sequence
from dataclasses import fields
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from normkit.train import style
from normkit.train.activations import PLACES
from normkit.train.results import Activation, EpochMetrics, NormResult, StepDifference, record
from normkit.train.verify import verdict

BEFORE_COLOUR: Final = "#999999"
DPI: Final = 110
MOST_IN_A_ROW: Final = 90
"""The letters of a legend that fit in one row."""


def to_csv(
    rows: Sequence[EpochMetrics] | Sequence[StepDifference], kind: type[EpochMetrics] | type[StepDifference]
) -> bytes:
    """Return ``rows``, all of type ``kind``, as CSV with a header; floats keep every digit.

    Without a column for the implementation where all rows are of the only one.
    """
    text = io.StringIO(newline="")
    several = any(row.impl for row in rows)
    names = [field.name for field in fields(kind) if field.name != "impl" or several]
    writer = csv.DictWriter(text, names, lineterminator="\n", restval="")
    writer.writeheader()
    writer.writerows(record(row) for row in rows)
    return text.getvalue().encode()


def curves(results: Sequence[NormResult], title: str) -> bytes:
    """Draw loss and accuracy over the epochs, for all contenders, as PNG."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle(title)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    colours = style.colours(results)
    for result in results:
        look = style.line(result, colours[result.label])
        epochs = [row.epoch for row in result.epochs]
        loss_axes.plot(epochs, [row.train_loss for row in result.epochs], **look)
        loss_axes.plot(epochs, [row.test_loss for row in result.epochs], linestyle="--", **look)
        accuracy_axes.plot(epochs, [row.train_accuracy for row in result.epochs], **look)
        accuracy_axes.plot(epochs, [row.test_accuracy for row in result.epochs], linestyle="--", **look)
    loss_axes.set(ylabel="cross-entropy loss", ylim=(0, None))
    accuracy_axes.set(ylabel="accuracy", ylim=(0, 1))
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        tidy(axes)
    handles = [Line2D([], [], **style.line(result, colours[result.label])) for result in results]
    labels = [style.title(result) + remark(result) for result in results]
    handles += [Line2D([], [], color="black"), Line2D([], [], color="black", linestyle="--")]
    columns = len(handles) if sum(map(len, labels)) < MOST_IN_A_ROW else 3
    figure.legend(handles, [*labels, "train", "test"], loc="outside lower center", ncols=columns, frameon=False)
    return png(figure)


def remark(result: NormResult) -> str:
    """Say where somebody's own layer departs from torch.nn's, or that a network is still at chance."""
    if result.learned_nothing:
        return f" (learned nothing in {result.epochs[-1].epoch} epochs)"
    if not (result.target and result.differences):
        return ""
    beyond = verdict(result).first_beyond
    return f" (departs at step {beyond[0].first_step:,})" if beyond else " (same as torch.nn)"


def activation_histograms(result: NormResult, colour: str) -> bytes:
    """Draw the input and the output of each normalization in the first and in the latest step, as PNG.

    Args:
        result: The contender.
        colour: Its colour.
    """
    moments = {"early": result.early, "late": result.late}
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    what = "what the sigmoids receive without any norm" if result.norm == "none" else style.title(result)
    figure.suptitle(f"Activations in training, each histogram scaled to its peak: {what}")
    grid = figure.subplots(len(moments), len(PLACES))
    for row, (moment, records) in enumerate(moments.items()):
        for column, place in enumerate(PLACES.values()):
            axes = grid[row, column]
            sides = [activation for activation in records if activation.place == place]
            for side in sides:
                name = f"{side.side} the norm" if len(sides) == 2 else "to the sigmoid"
                _draw(axes, side, name, BEFORE_COLOUR if side.side == "before" else colour)
            axes.set_yticks([])
            axes.set_title(f"output of {place}", fontsize=10)
            if row == len(moments) - 1:
                axes.set_xlabel("value")
            if column == 0 and sides:
                axes.set_ylabel(f"{moment}: epoch {sides[0].epoch}, step {sides[0].step}")
            if sides:  # a diverged training has no finite activations
                axes.legend(fontsize=8, frameon=False, loc="upper left")
            # Room for the legend above the curves.
            axes.set_ylim(0, 1.45)
            tidy(axes)
    return png(figure)


def _draw(axes: Axes, record: Activation, name: str, colour: str) -> None:
    counts = np.asarray(record.counts, dtype=float)
    edges = np.linspace(record.low, record.high, len(counts) + 1)
    # Adding zero turns a rounded -0.0 into 0.0.
    label = f"{name}: {round(record.mean, 2) + 0.0:.2f} ± {record.std:.2f}"
    axes.stairs(counts / counts.max(), edges, color=colour, fill=True, alpha=0.45, label=label)
    axes.stairs(counts / counts.max(), edges, color=colour)


def tidy(axes: Axes) -> None:
    """Take away what frames the curves, and lay a grid under them."""
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def png(figure: Figure) -> bytes:
    """Return a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
