"""Draw docs/images/four-d-view.svg: the 4-D view of a batch norm in two memory layouts.

Run it as ``python docs/four_d_view.py``. The sizes of the views are those that ``normkit.spec`` gives.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from normkit.spec import Norm, View, view

SHAPE = (2, 3, 2, 2)  # N, C, H, W
LAYOUTS = {"N C H W (contiguous)": ((0, 1, 2, 3), "N", "H·W"), "N H W C (channels last)": ((0, 2, 3, 1), "N·H·W", "1")}
COLORS = ("#9ecae1", "#fdd0a2", "#a1d99b")  # of the channels
INK, FRAME = "#24292f", "#d0d7de"
NOTE = """Each box is one element; its number is its offset in memory.
Read line by line, both pictures are plain memory: 0, 1, 2, …

One colour is one channel: one mean, one variance, one weight.
Batch norm averages each colour over all rows R and the run S."""
FIGURE = Path(__file__).parent / "images" / "four-d-view.svg"


def main() -> None:
    """Draw both layouts side by side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=FIGURE)
    mpl.rcParams.update({"svg.hashsalt": "normkit", "font.size": 10, "text.color": INK})
    figure, axes = plt.subplots(figsize=(9.6, 5.2), layout="constrained")
    figure.patch.set(facecolor="white", edgecolor=FRAME, linewidth=2)  # opaque: readable on a dark page too
    for left, (title, (order, rows, run)) in zip((0, 16), LAYOUTS.items(), strict=True):
        draw(axes, left, view(Norm("batch"), SHAPE, order), title, rows, run)
    axes.set(xlim=(-1.2, 22), ylim=(-9.4, 5.2), aspect="equal")
    axes.axis("off")
    axes.text(0, -4, NOTE, va="top", linespacing=1.6)
    plt.savefig(parser.parse_args().file, metadata={"Date": None}, dpi=150)


def draw(axes: Axes, left: int, v: View, title: str, rows: str, run: str) -> None:
    """Draw the rows R of a view, each of K runs of S elements, with A = 1."""
    a, r, k, s = v.shape
    axes.text(left, 3.6, f"{title}\n(A, R, K, S) = ({a}, {r}, {k}, {s})", fontsize=12, linespacing=1.5)
    for row in range(r):
        for column in range(k * s):
            at = (left + column, -row)
            axes.add_patch(plt.Rectangle(at, 1, -1, facecolor=COLORS[column // s], edgecolor="white", linewidth=1.5))
            axes.text(at[0] + 0.5, at[1] - 0.5, str(row * k * s + column), ha="center", va="center")
    for statistic in range(k):  # the runs
        axes.add_patch(plt.Rectangle((left + statistic * s, 0), s, -r, fill=False, edgecolor=INK, linewidth=1.2))
    bracket(axes, (left, 1.7), (left + k * s, 1.7), f"K = C = {k}")
    bracket(axes, (left, 0.4), (left + s, 0.4), f"S = {run} = {s}" if s > 1 else "S = 1")
    bracket(axes, (left - 0.4, -r), (left - 0.4, 0), f"R = {rows} = {r}")


def bracket(axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str) -> None:
    """Draw an arrow with two heads, and what it measures."""
    arrow = {"arrowstyle": "<->", "color": INK, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", start, end, arrowprops=arrow)
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    if start[0] == end[0]:
        axes.text(x - 0.2, y, label, ha="right", va="center", rotation=90)
    else:
        axes.text(x, y + 0.15, label, ha="center", va="bottom")


if __name__ == "__main__":
    main()
