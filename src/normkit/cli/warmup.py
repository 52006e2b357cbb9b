"""``normkit warmup``."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from normkit.choices import did_you_mean
from normkit.cli.models import load_model, print_result
from normkit.cli.options import Format, completing
from normkit.errors import UserError

EXIT_UNKEPT: Final = 1
_DTYPES: Final = "float64|float32|bfloat16|float16"


def warmup(
    target: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE.py:BUILD]",
            help="A function that returns a model and its input (a tensor, a tuple of several, or a mapping of keyword "
            "arguments), called without arguments.",
            show_default=False,
        ),
    ] = None,
    inference: Annotated[bool, typer.Option("--inference", help="Only what the model needs in evaluation.")] = False,
    dtypes: Annotated[
        list[str] | None,
        typer.Option(
            "--dtype",
            metavar=_DTYPES,
            autocompletion=completing(_DTYPES),
            help="All kernels for inputs of this dtype; repeat it.",
            show_default="float32, if there is no model",
        ),
    ] = None,
    output: Format = "table",
) -> None:
    """Compile kernels and keep them on disk, so that no later process waits for them.

    For an image, or a machine that is to serve: run it as the user, and on the kind of processor, that will need the
    kernels. Without a model all kernels of a dtype are compiled, which takes about a minute for each dtype.

    [bold]Examples[/bold]

    All kernels for float32, or what one model needs, which is quicker:

        normkit warmup
        normkit warmup net.py:build --inference

    Exit status: 0 all kernels are on disk; 1 they cannot be kept, and the output says why; 2 bad options, or a function
    that makes no model and input.
    """
    import torch

    from normkit.model import warmup as compile_kernels

    known = _DTYPES.split("|")
    unknown = [name for name in dtypes or () if name not in known]
    if unknown:
        meant = did_you_mean(unknown[0], known)
        raise UserError(f"--dtype must be {', '.join(known[:-1])} or {known[-1]}, not {unknown[0]!r}{meant}")
    if target is None and inference:
        raise UserError("--inference needs a model: name FILE.py:BUILD")
    model, inputs = (None, ()) if target is None else load_model(target, None)
    if model is not None and not inputs:
        raise UserError(f"{target} returns a model alone: let it return the model and an input of the real shape")
    names = dtypes or (["float32"] if model is None else [])
    with _each_kernel_named():
        found = compile_kernels(
            model,
            inputs[0] if len(inputs) == 1 else inputs,
            training=not inference,
            dtypes=[getattr(torch, name) for name in names],
        )
    print_result(found, output)
    raise typer.Exit(0 if found.problem is None else EXIT_UNKEPT)


@contextmanager
def _each_kernel_named() -> Iterator[None]:
    """Print a line to stderr for each kernel that is compiled."""
    logger, handler = logging.getLogger("normkit"), logging.StreamHandler()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)
