"""What ``normkit explain --compare`` prints."""

import numpy as np
from rich.console import Group, RenderableType
from rich.style import Style
from rich.text import Text

from normkit.explaining.case import Case
from normkit.explaining.comparison import Comparison, Row
from normkit.explaining.palette import INK, colour, letters
from normkit.explaining.shown import renderable_of
from normkit.explaining.text import plain_table, shape_text
from normkit.explaining.words import Words, words


@renderable_of.register
def render(comparison: Comparison, lang: str = "en") -> RenderableType:
    """Return a table for each input, and a map of the cells of each norm."""
    say = words(lang)
    parts: list[RenderableType] = [Text(say("compare"), style="bold")]
    for row in comparison.rows:
        title = say("compare axes", axes=", ".join(row.axes), shape=shape_text(row.shape))
        parts += [Text(f"\n{title}", style="bold"), _table(row, say), "", _maps(row, say)]
    return Group(*parts, f"\n{say('map')}", say("compare note"))


def _table(row: Row, say: Words) -> RenderableType:
    table = plain_table(*[say(name) for name in ("norm", "over", "means", "per mean", "weight")])
    for panel in row.panels:
        case = panel.case
        numbers = [str(case.num_sets), str(case.count), shape_text(case.weight_shape)]
        if not panel.is_defined:
            table.add_row(say(f"{case.kind} short"), say("single"), "-", "-", "-")
        else:
            table.add_row(say(f"{case.kind} short"), ", ".join(case.reduced), *numbers)
    return table


def _maps(row: Row, say: Words) -> RenderableType:
    """Return one line a norm: every cell in the order of memory, a gap between rows and a bar between samples."""
    table = plain_table("", ", ".join(row.axes))
    table.show_header = False
    table.columns[1].justify = "left"
    for panel in row.panels:
        if panel.is_defined:
            table.add_row(say(f"{panel.case.kind} short"), _map(panel.case))
    return table


def _map(case: Case) -> Text:
    text = Text(no_wrap=False)
    last_axis = case.shape[-1] if case.channels_last or len(case.shape) < 3 else int(np.prod(case.shape[2:]))
    sample = case.sets[0].size
    for position, number in enumerate(int(number) for number in case.sets.flat):
        if position and position % sample == 0:
            text.append(" | ")
        elif position and position % last_axis == 0:
            text.append(" ")
        text.append(letters(number), style=Style(color=INK, bgcolor=colour(number)))
    return text
