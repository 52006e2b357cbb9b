"""``normkit diagnose``."""

from pathlib import Path
from typing import Annotated

import typer

from normkit.cli import console
from normkit.cli.models import BatchSize, Data, Force, Target, Weights, load_data, load_model
from normkit.cli.options import Format
from normkit.extras import require


def diagnose(
    target: Target,
    weights: Weights = None,
    data: Data = None,
    batch_size: BatchSize = 64,
    batches: Annotated[int, typer.Option(metavar="N", help="Batches to run; they are held in memory.")] = 24,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Write a page with plots.", show_default=False)
    ] = None,
    force: Force = False,
    output: Format = "table",
) -> None:
    """Say why a model that is good in training is bad in evaluation, and what mends it.

    Batches are run with the norms in evaluation and in training form, everything else in evaluation. Causes come with
    the share of the gap that they explain, the number that shows each, and the call that mends it. Give the batches
    that training gets, shuffled. The model is not changed; its code runs in this process.

    [bold]Examples[/bold]

    A function that returns a model, its weights, and a loader:

        normkit diagnose net.py:build --weights net.pt --data net.py:loader

    An array of samples, and a page with plots:

        normkit diagnose net.py:build --data x.npy --html report.html

    Exit status: 0 healthy; 1 causes were found; 2 bad input.
    """
    from normkit.cli.progress import batches_run
    from normkit.model.diagnose import diagnose as examine
    from normkit.model.files import check_new

    if html is not None:
        require("a page", "cli", "matplotlib", "jinja2")
        check_new(html, force=force, endings=(".html",))
    model, inputs = load_model(target, weights)
    loader, forward = load_data(data, batch_size, inputs)
    with batches_run() as done:
        found = examine(model, loader, forward, batches=batches, progress=done)
    if html is not None:
        from normkit.model.diagnose.page import save

        save(found, html)
        console.err.print(f"written: {html}", soft_wrap=True)
    if output == "json":
        console.print_json(found.to_dict())
    else:
        console.out.print(found, crop=False)
    raise typer.Exit(0 if found.healthy else 1)
