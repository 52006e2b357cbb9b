"""The slabs of one normalization, drawn with Matplotlib: a colour and a letter for each set of cells."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Polygon, Rectangle
from numpy.typing import NDArray

from normkit.explaining.case import Case
from normkit.explaining.palette import INK, colour, letters
from normkit.explaining.slabs import Parameter, as_slabs, parameter, row_labels
from normkit.explaining.text import format_number
from normkit.explaining.words import Words

GREY: Final = "#57606a"
PARAMETER: Final = "#eef0f2"
"""Of weights, which belong to no set."""

DEPTH: Final = 0.28
"""How far a slab's back stands off its front, in cells."""

GAP: Final = 0.9
"""Between two slabs, in cells."""

TOP: Final = 1.1
"""Above the slabs, for what is written there, in cells."""

BELOW: Final = 2.2
"""Under the slabs, for a row of weights, in cells."""


@dataclass(frozen=True)
class Drawing:
    """A case to be drawn.

    Args:
        case: Which normalization of which axes.
        values: What stands in the cells beside the letters, in the array's shape; None for the letters alone.
    """

    case: Case
    values: NDArray[Any] | None = None

    @cached_property
    def _parameter(self) -> Parameter:
        return parameter(self.case)

    @cached_property
    def _sets(self) -> NDArray[Any]:
        return as_slabs(self.case, self.case.sets)

    @cached_property
    def _texts(self) -> NDArray[np.str_]:
        texts: NDArray[np.str_] = np.vectorize(letters, otypes=[np.str_])(self._sets)
        if self.values is None:
            return texts
        numbers = np.vectorize(format_number, otypes=[np.str_])(as_slabs(self.case, self.values))
        return np.char.add(np.char.add(texts, "\n"), numbers)

    @property
    def width(self) -> float:
        """In cells."""
        slabs, _, columns = self._sets.shape
        beside = 0.0 if self._parameter.is_below else self._parameter.numbers.shape[1] + GAP
        return float(slabs * (columns + GAP) + beside - GAP + DEPTH)

    @property
    def height(self) -> float:
        """In cells, with what is written above."""
        return float(TOP + self._sets.shape[1] + (BELOW if self._parameter.is_below else 0.3))

    def draw(self, axes: Axes, say: Words, size: tuple[float, float] | None = None) -> None:
        """Draw the slabs from left to right, and weight and bias under or beside them.

        Args:
            axes: Where to.
            say: The words.
            size: Width and height of the area that they stand in, in cells; None for their own, with labels of rows.
        """
        slabs, rows, columns = self._sets.shape
        for number in range(slabs):
            left = number * (columns + GAP)
            if slabs > 1:
                self._write(axes, (left + columns / 2, -0.3 - DEPTH), say("sample", number=number), "center")
            _draw_slab(axes, (left, 0.0), self._sets[number], self._texts[number], 9 if self.values is None else 8)
        if size is None:
            for row, label in enumerate(row_labels(self.case)):
                axes.text(-0.15, row + 0.52, label, ha="right", va="center", fontsize=8, color=GREY)
        self._draw_parameter(
            axes, say, (0.0, rows + 1.0) if self._parameter.is_below else (slabs * (columns + GAP), 0.0)
        )
        width, height = size or (self.width + 0.6, self.height)
        margin = (width - self.width) / 2
        axes.set(xlim=(-margin, self.width + margin), ylim=(height - TOP, -TOP), aspect="equal")
        bare(axes)

    def _draw_parameter(self, axes: Axes, say: Words, at: tuple[float, float]) -> None:
        numbers = self._parameter.numbers
        _draw_slab(axes, at, None, np.char.add("w", numbers.astype(np.str_)), 7)
        name = say("weight alone" if self.case.kind == "rms" else "parameters short")
        if self._parameter.is_below:
            self._write(axes, (numbers.shape[1] + 0.5, at[1] + 0.7), name, "left")
        else:
            self._write(axes, (at[0] + numbers.shape[1] / 2, -0.3 - DEPTH), name, "center")

    def _write(self, axes: Axes, at: tuple[float, float], text: str, alignment: str) -> None:
        axes.text(*at, text, ha=alignment, va="bottom", fontsize=8, color=GREY)


def bare(axes: Axes) -> None:
    """Take away what belongs to a chart."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _draw_slab(
    axes: Axes, at: tuple[float, float], sets: NDArray[Any] | None, texts: NDArray[np.str_], size: int
) -> None:
    """Draw one slab; cells without sets are weights."""
    (left, top), (rows, columns) = at, texts.shape
    right, bottom = left + columns, top + rows
    back = [(left, top), (left + DEPTH, top - DEPTH), (right + DEPTH, top - DEPTH), (right, top)]
    side = [(right, top), (right + DEPTH, top - DEPTH), (right + DEPTH, bottom - DEPTH), (right, bottom)]
    # not clipped: nothing reaches beyond the axes, and the names that Matplotlib gives to clips vary from run to run
    for face, shade in ((back, "#e6e8eb"), (side, "#d5d8dc")):
        axes.add_patch(Polygon(face, facecolor=shade, edgecolor=GREY, linewidth=0.6, clip_on=False))
    for (row, column), text in np.ndenumerate(texts):
        shade = PARAMETER if sets is None else colour(int(sets[row, column]))
        cell = (left + column, top + row)
        axes.add_patch(Rectangle(cell, 1, 1, facecolor=shade, edgecolor="white", linewidth=1.0, clip_on=False))
        axes.text(cell[0] + 0.5, cell[1] + 0.52, str(text), ha="center", va="center", fontsize=size, color=INK)
    axes.add_patch(Rectangle((left, top), columns, rows, fill=False, edgecolor=GREY, linewidth=0.8, clip_on=False))
