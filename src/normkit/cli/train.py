"""``normkit train``."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normkit.cli import console
from normkit.cli.options import Format, Threads, completing
from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit.train import TrainConfig

EXIT_DIFFERENT = 1
EXIT_INTERRUPTED = 130
_DATA = "digits|fashion-mnist|FOLDER"
_NORMS = "batch|layer|group|instance|none"
_IMPLS = "normkit|torch|FILE.py:NAME"


def train(
    data: Annotated[
        str | None,
        typer.Option(
            metavar=_DATA,
            autocompletion=completing(_DATA),
            help="What to train on: digits (1,797 real ones, built in), fashion-mnist, or a folder with four IDX files "
            "in the MNIST form: train-images-idx3-ubyte and so on, gzipped or not.",
            show_default="digits",
        ),
    ] = None,
    norms: Annotated[
        list[str] | None,
        typer.Option(
            "--norm",
            metavar=_NORMS,
            autocompletion=completing(_NORMS),
            help="What stands before each sigmoid; repeat it to compare several in one run.",
            show_default="batch",
        ),
    ] = None,
    impls: Annotated[
        list[str] | None,
        typer.Option(
            "--impl",
            metavar=_IMPLS,
            autocompletion=completing(_IMPLS),
            help="Whose layers to train with: normkit, torch, or a torch.nn.Module of your own (FILE.py:NAME or "
            "package.module:NAME), beside which the two others are trained too; repeat it to compare several.",
            show_default="normkit",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the images.", show_default="10, for the digits 20")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images per step.", show_default="256, for the digits 64")
    ] = None,
    lr: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RATE|NORM=RATE",
            help="Learning rate of SGD, for all norms or for one of them; repeat it for several.",
            show_default="1.0",
        ),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(metavar="N", help="Decides the initial weights and the order of the images.", show_default="0"),
    ] = None,
    threads: Threads = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Where the Fashion-MNIST files are.",
            show_default="where Debian's package puts them",
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Enlarge the images to N by N. From 64 on the second pool is 5, as in the published trace for 224, "
            "below it is 2.",
            show_default="28",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run folder, new or empty.", show_default="runs/DATA-TIME"),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN", help="Go on with the run in this folder, with its options; more --epochs make it longer."
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Train torch.nn's layers in lockstep and report every difference.")
    ] = False,
    sync: Annotated[
        bool, typer.Option("--sync", help="Share every batch among the ranks that torchrun started.")
    ] = False,
    trace: Annotated[bool, typer.Option("--trace", help="Print every layer's output shape first.")] = False,
    output: Format = "table",
) -> None:
    """Train LeNet on real images and compare normalizations.

    Metrics, checkpoints and pictures go to the run folder. The defaults are those of the published experiment (SGD with
    learning rate 1.0, batches of 256, 10 epochs), with smaller batches and more epochs for the few digits.

    [bold]Examples[/bold]

    Some seconds on the built-in digits, batch norm against none:

        normkit train --norm batch --norm none

    The published experiment, each step checked against torch.nn:

        normkit train --data fashion-mnist --norm batch --norm none --verify

    Your own layer, found as normkit check finds it, in the place of batch norm, beside normkit's and torch.nn's. Each
    step is compared with torch.nn's layer on the same weights, statistics and images:

        normkit train --impl layers.py:MyBatchNorm --epochs 5

    The shapes of the published trace, whatever the layers:

        normkit train --image-size 224 --trace --impl layers.py:MyNorm

    Go on after Ctrl-C, to the same numbers as without it:

        normkit train --resume runs/digits-20250131-120000

    The same training on two ranks, with synchronized batch norms:

        torchrun --nproc-per-node 2 -m normkit train --sync

    Exit status: 0 done; 1 an own layer departs from torch.nn's, or --verify found too large a difference; 2 bad
    options or data, or an own layer that raises; 130 interrupted.
    """
    from normkit import train as training

    if resume and out:
        raise UserError(f"--resume {resume} goes on in that folder: drop --out")
    options = {
        "data": data,
        "norms": norms,
        "impls": impls,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": _rates(lr),
        "seed": seed,
        "threads": threads,
        "data_dir": data_dir,
        "image_size": image_size,
        "verify": verify or None,
        "sync": sync or None,
    }
    given: dict[str, Any] = {name: value for name, value in options.items() if value is not None}
    config = training.resume_config(resume, given) if resume else training.TrainConfig(**given)
    if config.sync:
        with training.join(out, resume) as (first, own_out, own_resume):
            if not first:
                training.run(config, own_resume or own_out, resume=own_resume is not None, draw=False)
                return
            _run(config, out, resume, trace, output)
    else:
        _run(config, out, resume, trace, output)


def _rates(texts: list[str] | None) -> float | dict[str, float] | None:
    """Read RATE, or NORM=RATE of several norms."""
    rates: dict[str, float] = {}
    for text in texts or ():
        norm, equals, rate = text.rpartition("=")
        try:
            rates[norm] = float(rate)
        except ValueError:
            raise UserError(f"--lr expects RATE or NORM=RATE, as 0.1 or none=3; got {text!r}") from None
        if bool(equals) != bool(norm) or (len(rates) > 1 and "" in rates):
            raise UserError(f"--lr expects one RATE, or a NORM=RATE for each norm; got {' '.join(texts or ())!r}")
    return rates.get("", rates or None)


def _traced(config: "TrainConfig") -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Return the shapes of every contender by its label."""
    from normkit import train as training

    with contextlib.redirect_stdout(sys.stderr):
        return {contender.label: contender.trace(config.image_size) for contender in training.contenders(config)}


def _run(config: "TrainConfig", out: Path | None, resume: Path | None, trace: bool, output: str) -> None:
    from normkit import train as training

    shapes = _traced(config) if trace else {}
    if output == "table":
        for label, layers in shapes.items():
            _print_trace(label, layers)
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what an own layer prints is no result
            result = training.run(
                config, resume or out, resume=resume is not None, progress=training.for_console(console.err)
            )
    except training.Interrupted as interrupted:
        command = training.launched_with() if config.sync else "normkit"
        console.err.print(
            "interrupted; the finished epochs are saved. "
            f"Go on with: {command} train --resume {interrupted.result.folder}",
            soft_wrap=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if output == "json":
        console.print_json({**result.to_json(), **({"trace": shapes} if trace else {})})
    else:
        console.out.print(result, crop=False)
    if not result.passed:
        raise typer.Exit(EXIT_DIFFERENT)


def _print_trace(label: str, layers: list[tuple[str, tuple[int, ...]]]) -> None:
    """Print each layer's output shape for one image, as the publication does."""
    console.out.print(f"LeNet, norm {label}:")
    for name, shape in layers:
        console.out.print(f"  {name + ' output shape:':<28} {shape}")
    console.out.print()
