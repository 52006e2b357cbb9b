"""What the commands on models share: arguments, loading of models, weights and data, writing and printing."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normkit.cli import console
from normkit.cli.plain import name_options
from normkit.errors import UserError

if TYPE_CHECKING:
    from torch import nn

    from normkit.model.data import Forward

Target = Annotated[
    str,
    typer.Argument(
        metavar="FILE.py:BUILD",
        help="A function that returns the model, called without arguments; a class or a model will do too. "
        "It may return (model, input): a tensor, a tuple of several, or a mapping of keyword arguments.",
        show_default=False,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Weights to load: .safetensors, .pt, .pth (weights only).", show_default=False),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.py:LOADER|FILE.npy",
        help="The batches: a loader, a function that returns one, or an array of samples. Of a tuple or list the first "
        "entry is the model's input; a mapping holds its keyword arguments.",
        show_default=False,
    ),
]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Samples a batch, with --data FILE.npy.")]
Out = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Write the weights here: .safetensors or .pt.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Overwrite the file.")]


def load_model(target: str, weights: Path | None) -> "tuple[nn.Module, tuple[Any, ...]]":
    """Build a model, load its weights, and return it with the inputs that came with it."""
    from normkit.checking.target.load import load
    from normkit.model.files import build_model, load_weights

    model, inputs = build_model(load(target))
    if weights is not None:
        load_weights(model, weights)
    return model, inputs


def load_data(
    data: str | None, batch_size: int, inputs: tuple[Any, ...] = ()
) -> "tuple[Iterable[Any], Forward | None]":
    """Return the batches that --data names, or the inputs that came with the model as one batch.

    With them comes how the model is called with a batch: all of its inputs, or None, as the tools call it with a
    loader's batches.
    """
    from normkit.checking.target.load import load
    from normkit.model.files import iterable_of, read_data

    if data is None:
        if not inputs:
            raise UserError("this needs data: give --data, or let the function return the model and an input")
        return [inputs], call
    if batch_size < 1:
        raise UserError(f"--batch-size must be 1 or more, not {batch_size}")
    return read_data(Path(data), batch_size) if data.endswith(".npy") else iterable_of(load(data)), None


def call(model: "nn.Module", inputs: tuple[Any, ...]) -> Any:
    """Call a model with the inputs that came with it; a single mapping holds its keyword arguments."""
    if len(inputs) == 1 and isinstance(inputs[0], Mapping):
        return model(**inputs[0])
    return model(*inputs)


def write_out(model: "nn.Module", out: Path | None, *, force: bool) -> None:
    """Write the weights where --out names a file, and say so."""
    from normkit.model.files import write_state

    if out is not None:
        write_state(model, out, force=force)
        console.err.print(f"written: {out}", soft_wrap=True)


def print_result(result: Any, output: str, options: Mapping[str, str] | None = None) -> None:
    """Print what a tool returned, as text or as JSON.

    Args:
        result: It has ``str()`` and ``to_dict()``.
        output: "table" or "json".
        options: The options of arguments that the text names.
    """
    if output == "json":
        console.print_json(result.to_dict())
    else:
        console.out.print(name_options(str(result), options or {}), markup=False, soft_wrap=True)
