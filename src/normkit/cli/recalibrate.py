"""``normkit recalibrate``."""

from typing import Annotated

import typer

from normkit.cli.models import (
    BatchSize,
    Data,
    Force,
    Out,
    Target,
    Weights,
    load_data,
    load_model,
    print_result,
    write_out,
)
from normkit.cli.options import Format, completing

EXIT_INCOMPLETE = 1
_MODES = "pooled|sequential"


def recalibrate(
    target: Target,
    data: Data = None,
    weights: Weights = None,
    out: Out = None,
    mode: Annotated[
        str,
        typer.Option(
            metavar=_MODES,
            autocompletion=completing(_MODES),
            help="pooled: one pass, norms in training mode. sequential: one pass for each layer and one more, all in "
            "evaluation; the result does not depend on the batches.",
        ),
    ] = "pooled",
    include: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Layers to recalibrate, as 'encoder.*'; repeat it.", show_default="all"),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(metavar="PATTERN", help="Layers to leave; repeat it.", show_default=False)
    ] = None,
    batch_size: BatchSize = 64,
    force: Force = False,
    output: Format = "table",
) -> None:
    """Set a model's running statistics to those of data.

    For a model that is good in training and bad in evaluation: its statistics are stale, were averaged from small or
    unequal batches, or belong to other weights, as after averaging (EMA, SWA). Mean and variance of each layer's inputs
    are taken in float64 and merged, as if all data were one batch. Nothing else of the model changes.

    [bold]Examples[/bold]

    See how far a model's statistics are from those of its data; nothing is written:

        normkit recalibrate net.py:build --weights net.pt --data net.py:loader

    Write the weights with the new ones, and those that do not depend on the batches:

        normkit recalibrate net.py:build --weights net.pt --data x.npy --out new.pt
        normkit recalibrate net.py:build --weights net.pt --data x.npy --mode sequential --out new.pt

    Exit status: 0 every layer has the statistics of all data; 1 a layer was left, or inputs with NaN or of one value
    were left out: the output names them; 2 bad options, a model or data that cannot be used.
    """
    from normkit.cli.progress import passes_over
    from normkit.model import recalibrate
    from normkit.model.files import check_new

    if out is not None:
        check_new(out, force=force)
    model, inputs = load_model(target, weights)
    batches, forward = load_data(data, batch_size, inputs)
    with passes_over(batches) as counted:
        found = recalibrate(model, counted, mode, forward=forward, include=include or "*", exclude=exclude or ())
    write_out(model, out, force=force)
    print_result(found, output, {"mode": "--mode"})
    raise typer.Exit(0 if found.is_complete else EXIT_INCOMPLETE)
