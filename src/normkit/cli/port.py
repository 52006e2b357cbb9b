"""``normkit port``."""

from pathlib import Path
from typing import Annotated

import typer

from normkit.cli.models import Force, print_result
from normkit.cli.options import Format, completing
from normkit.errors import UserError

_LIBRARIES = "torch|keras|flax|mlx|onnx"


def port(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Arrays by name: .safetensors, .pt, .npz, .onnx.", show_default=False),
    ],
    source: Annotated[
        str,
        typer.Option(
            metavar=_LIBRARIES,
            help="The library that the arrays come from.",
            show_default=False,
            autocompletion=completing(_LIBRARIES),
        ),
    ],
    to: Annotated[
        str,
        typer.Option(
            metavar=_LIBRARIES,
            help="The library that they are for.",
            show_default=False,
            autocompletion=completing(_LIBRARIES),
        ),
    ],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="OLD=NEW", help="Rename a layer; repeatable.", show_default=False),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option(
            "--kind",
            metavar="PATTERN=KIND",
            help="What a layer is, where its arrays do not say it: batch, layer, group, instance, rms; repeatable.",
            show_default=False,
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Values a channel has in a batch: converts the running variance between biased and unbiased.",
            show_default="copied",
        ),
    ] = None,
    eps: Annotated[
        float | None, typer.Option(metavar="EPS", help="The source's eps.", show_default="its default")
    ] = None,
    momentum: Annotated[
        float | None, typer.Option(metavar="M", help="The source's momentum.", show_default="its default")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the arrays here: .safetensors, .pt, .npz.", show_default=False),
    ] = None,
    force: Force = False,
    output: Format = "table",
) -> None:
    """Convert the arrays of norm layers from one library to another.

    Names, nesting and, with --count, the running variance; it prints the eps and the momentum that the new layers need.
    Arrays of other layers are left and named. Nested names have "/" (Keras, Flax) or "." between their parts.

    [bold]Examples[/bold]

    What becomes of a Keras model's norms, saved with numpy.savez("weights.npz", **{w.path: w for w in model.weights}):

        normkit port weights.npz --source keras --to torch

    Into a state dict, under the names of the torch model:

        normkit port weights.npz --source keras --to torch --name model/bn=features.1 --out norms.safetensors

    The norms of an ONNX model:

        normkit port model.onnx --source onnx --to torch --out norms.pt

    Exit status: 0 done; 2 bad options, or no norm among the arrays.
    """
    from normkit.cli import console
    from normkit.model import port as convert
    from normkit.model.port_files import check_new_arrays, read_arrays, write_arrays

    if out is not None:
        check_new_arrays(out, force=force)
    ported = convert(
        read_arrays(file),
        source,
        to,
        names=_pairs("--name", names),
        kinds=_pairs("--kind", kinds),
        count=count,
        eps=eps,
        momentum=momentum,
    )
    if out is not None:
        write_arrays(ported.state, to, out, force=force)
        console.err.print(f"written: {out}", soft_wrap=True)
    print_result(ported, output)


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in texts or ()]
    for old, equals, new in pairs:
        if not (old and equals and new):
            raise UserError(f"{option} expects two names with = between them; got {old + equals + new!r}")
    return {old: new for old, _, new in pairs}
