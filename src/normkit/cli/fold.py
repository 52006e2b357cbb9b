"""``normkit fold``."""

from typing import Annotated, Any

import typer

from normkit.cli import console
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
from normkit.errors import UserError

EXIT_LEFT = 1
_INTO = "previous|next|both"


def fold(
    target: Target,
    weights: Weights = None,
    data: Data = None,
    batch_size: BatchSize = 1,
    norm_into: Annotated[
        str,
        typer.Option(
            "--into",
            metavar=_INTO,
            autocompletion=completing(_INTO),
            help="The layer before a norm, all those behind it, or whichever is possible. Norms that compute "
            "statistics in evaluation too, as LayerNorm, can give weight and bias to those behind them alone.",
        ),
    ] = "previous",
    out: Out = None,
    force: Force = False,
    output: Format = "table",
) -> None:
    """Fold a model's norms into the convolutions and linear layers beside them.

    For a model that is done with training: it runs without the norms, and gives the same results. The model is put in
    evaluation mode and run on an example, to see which layer makes what a norm gets and who else uses it. The example
    is the input that the function returns, or the first batch of --data. Each norm that cannot be folded is named, with
    the reason. A folded copy must give the same results on the example, in float64 too, before anything is written.

    The program that loads the weights has to fold its model too: normkit.fold(model, example).

    [bold]Examples[/bold]

    See what can be folded, and what is gained; nothing is written:

        normkit fold net.py:build
        normkit fold net.py:build --weights net.pt --data images.npy

    Write the weights of the folded model:

        normkit fold net.py:build --weights net.pt --out folded.safetensors

    The weights of the layer norms of a transformer, into its linear layers:

        normkit fold gpt.py:build --into next

    Exit status: 0 every norm was folded; 1 a norm was left, and is named (if all are, nothing is written); 2 bad
    options, a model that cannot be folded as a whole, or whose folded copy gave other results.
    """
    from normkit.model import fold as fold_model
    from normkit.model.files import check_new

    if out is not None:
        check_new(out, force=force)
    model, inputs = load_model(target, weights)
    model.eval()
    batches, forward = load_data(data, batch_size, inputs)
    with console.err.status("running the model in float64"):
        folding = fold_model(model, _first(batches), norm_into, forward)
    if folding.folded:
        write_out(model, out, force=force)
    print_result(folding, output, {"norm_into": "--into"})
    raise typer.Exit(EXIT_LEFT if folding.left else 0)


def _first(batches: Any) -> Any:
    for batch in batches:
        return batch
    raise UserError("--data has no batch: fold needs one")
