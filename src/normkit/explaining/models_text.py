"""What ``normkit explain --model`` prints."""

from rich.console import Group, RenderableType
from rich.text import Text

from normkit.explaining.models import ModelNorms
from normkit.explaining.shown import renderable_of
from normkit.explaining.text import plain_table, shape_text
from normkit.explaining.words import words


@renderable_of.register
def render(found: ModelNorms, lang: str = "en") -> RenderableType:
    """Return a table of the norms of a model."""
    say = words(lang)
    notes = [Text(say("unknown norms", names=", ".join(found.unknown)))] if found.unknown else []
    if not found.norms:
        return Group(say("no norms", name=found.model), *notes)
    heads = ("layer name", "class", "input", "over", "means", "per mean", "calls")
    table = plain_table(*[say(head) for head in heads], title=say("model", name=found.model))
    for column in table.columns:
        column.overflow = "fold"
    for norm in found.norms:
        case = norm.case
        if case is None:
            table.add_row(norm.name, norm.layer, say("not called"))
            continue
        numbers = [str(case.num_sets), str(case.count), str(norm.calls)]
        table.add_row(norm.name, norm.layer, shape_text(case.shape), ", ".join(case.reduced), *numbers)
    return Group(table, *notes)
