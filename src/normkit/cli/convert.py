"""``normkit convert``."""

from typing import Annotated, Any

import typer

from normkit.cli.models import (
    BatchSize,
    Data,
    Force,
    Out,
    Target,
    Weights,
    call,
    load_data,
    load_model,
    print_result,
    write_out,
)
from normkit.cli.options import Format, completing
from normkit.errors import UserError

_TO = "group|layer|instance|frozen|sync|batch"


def convert(
    target: Target,
    to: Annotated[
        str,
        typer.Option(metavar=_TO, help="What they become.", show_default=False, autocompletion=completing(_TO)),
    ],
    groups: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Groups of a group norm.",
            show_default="as many as divide the channels, up to 32, with 4 channels or more each",
        ),
    ] = None,
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Layers to convert, as 'layer4.*'; repeat it.", show_default="all"),
    ] = None,
    weights: Weights = None,
    data: Data = None,
    batch_size: BatchSize = 64,
    out: Out = None,
    force: Force = False,
    output: Format = "table",
) -> None:
    """Make the batch norms of a model other norms.

    Weights and biases are carried over; the layers that were converted and left are named. If the function returns an
    input too, the results before and after are compared. With --data, weights and biases are rescaled until each layer
    returns the mean and variance that the batch norm returned.

    The program that loads the weights has to convert its model too: normkit.convert(model, "group").

    [bold]Examples[/bold]

    What would be converted, and how far the result moves:

        normkit convert net.py:build --to group

    With weights, rescaled on data, into a new file:

        normkit convert net.py:build --weights net.pt --to group --data images.npy --out group.safetensors

    Part of a model, with another number of groups:

        normkit convert net.py:build --to group --groups 8 --include 'backbone.*'

    Exit status: 0 done; 1 a batch norm was left, and is named; 2 bad options, or nothing that can be converted.
    """
    from normkit.cli.progress import passes_over
    from normkit.model import convert as convert_model
    from normkit.model.convert.change import LOSSLESS
    from normkit.model.files import check_new

    if out is not None and to in LOSSLESS:
        raise UserError(f"--to {to} changes no weights: drop --out, and call normkit.convert in your program")
    if out is not None:
        check_new(out, force=force)
    model, inputs = load_model(target, weights)
    arguments: dict[str, Any] = {"groups": groups, "include": include or "*"}
    if data is not None:
        loader, _ = load_data(data, batch_size)
        with passes_over(loader) as batches:
            conversion = convert_model(model, to, data=batches, **arguments)
    elif inputs:
        conversion = convert_model(model, to, example=inputs, forward=call, **arguments)
    else:
        conversion = convert_model(model, to, **arguments)
    write_out(model, out, force=force)
    print_result(conversion, output)
    raise typer.Exit(0 if conversion.is_complete else 1)
