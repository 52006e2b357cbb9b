"""What ``normkit explain --steps`` prints."""

from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from normkit.explaining.running import RunningStatistics
from normkit.explaining.shown import renderable_of
from normkit.explaining.text import plain_table
from normkit.explaining.words import words

VALUES: Final = 4
"""Values of the evaluation that are printed."""


@renderable_of.register
def render(running: RunningStatistics, lang: str = "en") -> RenderableType:
    """Return the statistics after each step, and what evaluation makes of them."""
    say = words(lang)
    momentum, case = running.momentum, running.case
    steps = len(running.steps)
    title = say("running", layer=running.layer, steps=steps, momentum="None" if momentum is None else f"{momentum:g}")
    notes = [
        say(
            "unbiased note" if case.kind == "batch" else "unbiased note instance",
            factor=f"{case.count / (case.count - 1):.4g}",
            count=case.count,
        ),
        say("agreement", difference=f"{running.difference():.1e}"),
    ]
    if running.same_array:
        notes.insert(0, say("same array"))
    if momentum is not None:
        notes.insert(1, say("left", steps=steps, left=f"{(1 - momentum) ** steps:.1%}"))
    return Group(
        Text(title, style="bold"),
        say("update average") if momentum is None else say("update"),
        f"{say('channel 0', channels=case.weight_shape[0])}\n",
        _means(running, lang),
        "",
        _variances(running, lang),
        Text(f"\n{say('evaluation')}"),
        _evaluation(running, lang),
        "",
        *notes,
    )


def _means(running: RunningStatistics, lang: str) -> RenderableType:
    say = words(lang)
    table = plain_table(*[say(name) for name in ("step", "batch mean", "running mean", "by torch")])
    for step in running.steps:
        numbers = (step.batch_mean, step.mean, step.torch_mean)
        table.add_row(str(step.number), *[_four(values[0]) for values in numbers])
    return table


def _variances(running: RunningStatistics, lang: str) -> RenderableType:
    say = words(lang)
    table = plain_table(*[say(name) for name in ("step", "batch var", "running var", "by torch", "if biased")])
    for step in running.steps:
        numbers = (step.batch_var, step.var, step.torch_var, step.var_biased)
        table.add_row(str(step.number), *[_four(values[0]) for values in numbers])
    return table


def _evaluation(running: RunningStatistics, lang: str) -> RenderableType:
    say = words(lang)
    table = plain_table(*[say(name) for name in ("x", "y", "by torch", "if biased")])
    seen = running.evaluation
    arrays = (seen.x, seen.y, seen.torch_y, seen.y_biased)
    for values in zip(*[array[:, 0].flat for array in arrays], strict=True):
        table.add_row(*[_four(value) for value in values])
        if table.row_count == VALUES:
            break
    return table


def _four(value: float) -> str:
    """Return a number with four decimals; two that differ by rounding errors look the same."""
    return f"{round(float(value), 10) + 0.0:.4f}"
