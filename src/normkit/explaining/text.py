"""What ``normkit explain`` prints of one normalization: rich renderables, which also give plain text and HTML."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.style import Style
from rich.table import Table
from rich.text import Text

from normkit.explaining.case import Indices
from normkit.explaining.example import Array
from normkit.explaining.normalization import Normalization
from normkit.explaining.palette import INK, colour, letters
from normkit.explaining.shown import renderable_of
from normkit.explaining.words import Words, words

MAX_ROWS: Final = 32
"""Rows of values that are printed, and sets."""

WIDTH: Final = 80
"""Columns of plain text that goes to no terminal."""


@renderable_of.register
def render(seen: Normalization, lang: str = "en") -> RenderableType:
    """Return everything there is to say of one normalization."""
    say = words(lang)
    case = seen.case
    is_rms = case.kind == "rms"
    counts = say(
        "counts rms" if is_rms else "counts", sets=case.num_sets, count=case.count, weight=shape_text(case.weight_shape)
    )
    return Group(
        Text(f"{say(case.kind)}: {case.layer}", style="bold"),
        f"y = {formula(case.kind)}  eps={seen.eps:.3g}\n",
        axes_table(seen, say),
        f"\n{counts}\n{say('view', view=case.view.shape)}\n",
        say("before rms" if is_rms else "before", axes=", ".join(case.axes)),
        Values(seen, seen.x, say),
        Text(f"\n{say('sets')}"),
        sets_table(seen, say),
        f"\n{say('after')} = {formula(case.kind)}",
        Values(seen, seen.y, say),
        *([Text(f"\n{say('rms note' if is_rms else 'variance note')}")] if seen.is_standardized else []),
    )


def formula(kind: str) -> str:
    """Return the formula of a norm, in characters that every terminal has."""
    return "x / sqrt(mean(x^2) + eps) * weight" if kind == "rms" else "(x - mean) / sqrt(var + eps) * weight + bias"


def plain_table(*columns: str, title: str | None = None) -> Table:
    """Return a table with a rule under its heads alone, the first column to the left and all others to the right."""
    table = Table(box=None, title=title, title_justify="left", pad_edge=False, header_style="underline")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def axes_table(seen: Normalization, say: Words) -> Table:
    """Return what happens along each axis."""
    is_rms = seen.case.kind == "rms"
    table = Table(box=None, pad_edge=False, header_style="underline")
    table.add_column(say("axis"))
    table.add_column(say("size"), justify="right")
    table.add_column(say("mean square" if is_rms else "statistics"))
    table.add_column(say("weight alone" if is_rms else "parameters"))
    for mark in seen.case.marks:
        statistics = Text(say("averaged"), style="bold") if mark.reduced else say("kept", axis=mark.name)
        parameters = say("varies", axis=mark.name) if mark.affine else say("shared")
        table.add_row(mark.name, str(mark.size), statistics, parameters)
    return table


def sets_table(seen: Normalization, say: Words) -> RenderableType:
    """Return mean and variance of each set of cells, before and after."""
    case, (mean_after, var_after) = seen.case, seen.after
    is_rms = case.kind == "rms"
    names = ["mean square", "mean square after"] if is_rms else ["mean", "var", "mean after", "var after"]
    table = plain_table(*[say(name) for name in ("set", "values", *names)])
    columns = [seen.var, var_after] if is_rms else [seen.mean, seen.var, mean_after, var_after]
    for number in range(min(case.num_sets, MAX_ROWS)):
        cells = [format_number(column[number]) for column in columns]
        table.add_row(Text(f" {letters(number)} ", style=_style(number)), str(case.count), *cells)
    if case.num_sets <= MAX_ROWS:
        return table
    return Group(table, say("more sets", shown=MAX_ROWS, all=case.num_sets))


@dataclass(frozen=True)
class Values:
    """A table of values, each with the letter and the colour of its set: as many columns as fit."""

    seen: Normalization
    values: Array
    say: Words

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table, and what is left out of it."""
        rows, columns, labels, heads = _grid(self.seen)
        numbers, sets = self.values.reshape(rows, columns), self.seen.case.sets.reshape(rows, columns)
        cell_width, label_width = _widths(numbers[:MAX_ROWS], sets[:MAX_ROWS]), max(map(len, labels[:MAX_ROWS])) + 1
        shown = max(1, min(columns, (options.max_width - label_width) // (cell_width + 1)))
        table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="underline")
        table.add_column("")
        for head in heads[:shown]:
            table.add_column(head, justify="right")
        for row in range(min(rows, MAX_ROWS)):
            table.add_row(labels[row], *_cells(numbers[row, :shown], sets[row, :shown], cell_width))
        yield table
        if rows > MAX_ROWS or columns > shown:
            yield self.say("more", rows=min(rows, MAX_ROWS), all_rows=rows, columns=shown, all_columns=columns)


def _grid(seen: Normalization) -> tuple[int, int, list[str], list[str]]:
    """Return the rows and columns of a table of all values, and their labels.

    A row is a sample and a channel with all its positions; with the channels last, a position with all its channels.
    """
    case = seen.case
    rank = len(case.shape)
    split = rank - 1 if case.channels_last or rank < 3 else 2
    rows, columns = int(np.prod(case.shape[:split], dtype=int)), int(np.prod(case.shape[split:], dtype=int))
    return (
        rows,
        columns,
        labels_of(case.axes[:split], case.shape[:split]),
        labels_of(case.axes[split:], case.shape[split:]),
    )


def labels_of(names: Sequence[str], sizes: Sequence[int]) -> list[str]:
    """Return the label of each combination of positions along some axes: "N0 C1"."""
    combinations = itertools.product(*map(range, sizes))
    return [" ".join(f"{name}{number}" for name, number in zip(names, at, strict=True)) for at in combinations]


def _widths(numbers: Array, sets: Indices) -> int:
    longest = max(len(format_number(value)) for value in numbers.flat)
    return longest + max(len(letters(int(number))) for number in np.unique(sets)) + 3


def _cells(numbers: Array, sets: Indices, width: int) -> Iterator[Text]:
    for value, number in zip(numbers, sets, strict=True):
        letter = letters(int(number))
        yield Text(f" {format_number(value):>{width - len(letter) - 3}} {letter} ", style=_style(int(number)))


def format_number(value: float) -> str:
    """Return a number with two decimals, or with an exponent where these would say little."""
    if value == 0 or 0.005 <= abs(value) < 100_000:
        return f"{value:.2f}"
    return "0.00" if abs(value) < 1e-9 else f"{value:.1e}"


def _style(number: int) -> Style:
    return Style(color=INK, bgcolor=colour(number))


def shape_text(shape: Sequence[int]) -> str:
    """Return a shape as Python writes it."""
    return f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
