"""Pictures and tables of a run, drawn from its records alone."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from normkit.train.activations import PLACES
from normkit.train.results import Activation, EpochMetrics, NormResult, StepDifference

# Okabe and Ito's colours, which stay apart for colour-blind readers; one norm has one colour in every run.
COLOURS: Final = {
    "batch": "#0072B2",
    "layer": "#009E73",
    "group": "#CC79A7",
    "instance": "#E69F00",
    "none": "#555555",
}
BEFORE_COLOUR: Final = "#999999"
DPI: Final = 110


def to_csv(
    rows: Sequence[EpochMetrics] | Sequence[StepDifference], kind: type[EpochMetrics] | type[StepDifference]
) -> bytes:
    """Return ``rows``, all of type ``kind``, as CSV with a header; floats keep every digit."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [field.name for field in fields(kind)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue().encode()


def curves(results: Sequence[NormResult], title: str) -> bytes:
    """Draw loss and accuracy over the epochs, for all norms, as PNG."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    figure.suptitle(title)
    loss_axes, accuracy_axes = figure.subplots(1, 2)
    for result in results:
        style: dict[str, Any] = {"color": COLOURS[result.norm], "marker": "o", "markersize": 3}
        epochs = [row.epoch for row in result.epochs]
        loss_axes.plot(epochs, [row.train_loss for row in result.epochs], **style)
        loss_axes.plot(epochs, [row.test_loss for row in result.epochs], linestyle="--", **style)
        accuracy_axes.plot(epochs, [row.train_accuracy for row in result.epochs], **style)
        accuracy_axes.plot(epochs, [row.test_accuracy for row in result.epochs], linestyle="--", **style)
    loss_axes.set(ylabel="cross-entropy loss", ylim=(0, None))
    accuracy_axes.set(ylabel="accuracy", ylim=(0, 1))
    for axes in (loss_axes, accuracy_axes):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _tidy(axes)
    handles = [Line2D([], [], color=COLOURS[result.norm], marker="o", markersize=3) for result in results]
    labels = [f"{result.norm} norm" if result.norm != "none" else "no norm" for result in results]
    handles += [Line2D([], [], color="black"), Line2D([], [], color="black", linestyle="--")]
    figure.legend(handles, [*labels, "train", "test"], loc="outside lower center", ncols=len(handles), frameon=False)
    return _png(figure)


def activation_histograms(result: NormResult) -> bytes:
    """Draw the input and the output of each normalization in the first and in the latest step, as PNG."""
    moments = {"early": result.early, "late": result.late}
    figure = Figure(figsize=(12, 5.6), layout="constrained")
    what = "what the sigmoids receive without any norm" if result.norm == "none" else f"{result.norm} norm"
    figure.suptitle(f"Activations in training, each histogram scaled to its peak: {what}")
    grid = figure.subplots(len(moments), len(PLACES))
    for row, (moment, records) in enumerate(moments.items()):
        for column, place in enumerate(PLACES.values()):
            axes = grid[row, column]
            sides = [record for record in records if record.place == place]
            for record in sides:
                name = f"{record.side} the norm" if len(sides) == 2 else "to the sigmoid"
                _draw(axes, record, name, BEFORE_COLOUR if record.side == "before" else COLOURS[result.norm])
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
            _tidy(axes)
    return _png(figure)


def _draw(axes: Axes, record: Activation, name: str, colour: str) -> None:
    counts = np.asarray(record.counts, dtype=float)
    edges = np.linspace(record.low, record.high, len(counts) + 1)
    # Adding zero turns a rounded -0.0 into 0.0.
    label = f"{name}: {round(record.mean, 2) + 0.0:.2f} ± {record.std:.2f}"
    axes.stairs(counts / counts.max(), edges, color=colour, fill=True, alpha=0.45, label=label)
    axes.stairs(counts / counts.max(), edges, color=colour)


def _tidy(axes: Axes) -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
