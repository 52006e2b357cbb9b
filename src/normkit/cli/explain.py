"""``normkit explain``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normkit.cli import console
from normkit.cli.options import Format, completing
from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit.explaining.models import ModelNorms
    from normkit.explaining.outputs import Drawn


def explain(
    norm: Annotated[
        str | None,
        typer.Argument(
            metavar="NORM",
            help="batch, layer, group, instance, rms, or channel (layer norm over the channels: LayerNorm2d).",
            autocompletion=completing("batch|layer|group|instance|rms|channel"),
            show_default="batch",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(metavar="N,C,H,W", help="Shape of the example, or of a model's input.", show_default="2,4,2,2"),
    ] = None,
    num_groups: Annotated[
        int | None, typer.Option("--groups", metavar="N", help="Groups of group norm.", show_default="2")
    ] = None,
    normalized_shape: Annotated[
        str | None,
        typer.Option(
            metavar="C,H,W",
            help="Sizes of the last axes, over which layer and rms average.",
            show_default="all but the first; of N,L,C the last",
        ),
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="The channels are the last axis: N,H,W,C or N,L,C.")
    ] = False,
    array: Annotated[
        Path | None, typer.Option("--input", metavar="FILE.npy", help="Explain this array.", show_default=False)
    ] = None,
    compare: Annotated[bool, typer.Option("--compare", help="Put all norms side by side.")] = False,
    steps: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Show running statistics over N training steps, beside torch.nn's.", show_default=False
        ),
    ] = None,
    momentum: Annotated[
        str | None,
        typer.Option(
            metavar="M|none",
            help="With --steps: the weight of the new batch; none: a plain average.",
            show_default="0.1",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:BUILD",
            help="List the norms of the model that this function returns; it may return (model, input).",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write a picture (.svg, .png) or an interactive page (.html).", show_default=False
        ),
    ] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            metavar="en|zh", help="The language.", show_default="by locale", autocompletion=completing("en|zh")
        ),
    ] = None,
    output: Format = "table",
) -> None:
    """Show which values a normalization averages, with real numbers.

    Cells with the same letter and colour share a mean and a variance. The numbers come from the float64 reference that
    the layers are tested against.

    [bold]Examples[/bold]

    Group norm of a small image: in the terminal, as a picture, as an interactive page.

        normkit explain group --groups 2
        normkit explain group --groups 2 --out group.svg
        normkit explain group --out normalization.html

    All norms side by side, and ten training steps of batch norm beside torch.nn's:

        normkit explain --compare
        normkit explain batch --steps 10 --momentum 0.1

    Your own array, and what the norms of your model average:

        normkit explain layer --input activations.npy
        normkit explain --model net.py:build --shape 1,3,224,224

    Exit status: 0 done; 2 bad options, or a shape that the norm refuses.
    """
    from normkit.explaining.outputs import PAGE, check_path
    from normkit.explaining.words import language_of_locale, words

    language = language_of_locale() if lang is None else lang.lower().replace("-", "_").partition("_")[0]
    words(language)  # refuses another one
    given = {"--compare": compare, "--steps": steps is not None, "--model": model is not None}
    views = [option for option, is_given in given.items() if is_given]
    if len(views) > 1:
        raise UserError(f"{' and '.join(views)} show different things: give one of them")
    _refuse(
        norm,
        {**given, "--shape": shape, "--input": array, "--momentum": momentum, "--out": out, "--groups": num_groups},
    )
    if out is not None and check_path(out).suffix.lower() == PAGE and views:
        raise UserError(f"{out} shows every norm and momentum: drop {views[0]}, or name an .svg or .png")
    sizes = _sizes("--shape", shape)
    if model is not None:
        _show(_listed(model, sizes), language, output)
    elif compare:
        _show(_compared(sizes, num_groups, channels_last), language, output, out)
    elif steps is not None:
        _show(_running(norm, array, sizes, steps, momentum, channels_last), language, output, out)
    else:
        last_axes = _sizes("--normalized-shape", normalized_shape)
        _show(_explained(norm, array, sizes, num_groups, last_axes, channels_last), language, output, out)


def _refuse(norm: str | None, given: dict[str, Any]) -> None:
    """Refuse options that do nothing together."""
    every = "--compare" if given["--compare"] else "--model" if given["--model"] else None
    if every and norm:
        raise UserError(f"{every} shows every norm: drop {norm}")
    if given["--momentum"] is not None and not given["--steps"]:
        raise UserError("--momentum belongs to --steps: add --steps 10")
    if given["--input"] is not None and (given["--shape"] or every):
        raise UserError(f"--input brings its own array: drop {every or '--shape'}")
    if given["--model"] and given["--out"]:
        raise UserError("--model prints a table: drop --out, or use --format json")
    if given["--model"] and given["--groups"]:
        raise UserError("--model shows the groups of the model's own norms: drop --groups")


def _explained(
    norm: str | None,
    array: Path | None,
    shape: tuple[int, ...] | None,
    num_groups: int | None,
    normalized_shape: tuple[int, ...] | None,
    channels_last: bool,
) -> "Drawn":
    from normkit.explaining import explain
    from normkit.explaining.example import example
    from normkit.model.files import read_array

    return explain(
        norm or "batch",
        read_array(array) if array else example(shape, channels_last=channels_last),
        num_groups=num_groups,
        normalized_shape=normalized_shape,
        channels_last=channels_last,
    )


def _compared(shape: tuple[int, ...] | None, num_groups: int | None, channels_last: bool) -> "Drawn":
    from normkit.explaining import compare
    from normkit.explaining.comparison import INPUTS

    return compare(((shape, channels_last),) if shape else INPUTS, num_groups=num_groups)


def _running(
    norm: str | None,
    array: Path | None,
    shape: tuple[int, ...] | None,
    steps: int,
    momentum: str | None,
    channels_last: bool,
) -> "Drawn":
    from normkit.explaining import running_statistics
    from normkit.model.files import read_array

    return running_statistics(
        norm or "batch",
        read_array(array) if array else None,
        shape=shape,
        steps=steps,
        momentum=_weight_of_new(momentum or "0.1"),
        channels_last=channels_last,
    )


def _listed(target: str, shape: tuple[int, ...] | None) -> "ModelNorms":
    from normkit.checking.target.load import load
    from normkit.explaining.models import norms_of_target

    return norms_of_target(load(target), shape)


def _show(shown: "Drawn | ModelNorms", lang: str, output: str, out: Path | None = None) -> None:
    """Write it where a file is named, else print it."""
    from normkit.explaining.models import ModelNorms
    from normkit.explaining.outputs import can_show, render, save
    from normkit.explaining.words import words

    if out is not None and not isinstance(shown, ModelNorms):
        save(shown, out, lang)
        if not can_show(lang, out.suffix.lower()):
            console.err.print(words(lang)("no cjk font"))
        console.err.print(f"written: {out}", soft_wrap=True)
    if output == "json":
        console.print_json(shown.to_dict())
    elif out is None:
        console.out.print(render(shown, lang))


def _sizes(option: str, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    parts = [part.strip() for part in value.strip("() ").rstrip(",").split(",")]
    if not all(part.isdigit() for part in parts):
        raise UserError(f"{option} expects sizes with commas between them, as 2,4,2,2; got {value!r}")
    return tuple(int(part) for part in parts)


def _weight_of_new(value: str) -> float | None:
    if value.lower() == "none":
        return None
    try:
        return float(value)
    except ValueError:
        raise UserError(f"--momentum must be a number from 0 to 1, or none; got {value!r}") from None
