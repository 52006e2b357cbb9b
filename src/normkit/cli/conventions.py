"""``normkit conventions``."""

from typing import Annotated

import typer

from normkit.choices import did_you_mean
from normkit.cli.options import Format, completing
from normkit.errors import UserError


def conventions(
    libraries: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="LIBRARY",
            help="torch, keras, flax, mlx, onnx.",
            show_default="all of them",
            autocompletion=completing("torch|keras|flax|mlx|onnx"),
        ),
    ] = None,
    output: Format = "table",
) -> None:
    """Print what PyTorch, Keras, Flax, MLX and ONNX call the same norms, and where they differ.

    Names of layers and arrays, eps, momentum, the stored variance and the channel axis. [bold]normkit port[/bold]
    converts by this table, and [bold]normkit check[/bold] judges by it.

    [bold]Examples[/bold]

    All of them, two that are to be compared, and the same for a program:

        normkit conventions
        normkit conventions keras torch
        normkit conventions --format json

    Exit status: 0 done; 2 bad options.
    """
    from normkit.cli import console
    from normkit.conventions import CONVENTIONS, rows

    chosen = libraries or list(CONVENTIONS)
    unknown = [library for library in chosen if library not in CONVENTIONS]
    if unknown:
        meant = did_you_mean(unknown[0], CONVENTIONS)
        raise UserError(f"expected libraries among {', '.join(CONVENTIONS)}; got {unknown[0]!r}{meant}")
    if output == "json":
        console.print_json({library: CONVENTIONS[library].to_dict() for library in chosen})
        return
    table = rows(chosen)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        line = "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        console.out.print(line.rstrip(), soft_wrap=True, markup=False)
