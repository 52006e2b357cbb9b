"""``normkit train``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normkit.cli import console
from normkit.cli.options import Format, Threads
from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit.train import RunResult, TrainConfig

EXIT_DIFFERENT = 1
EXIT_INTERRUPTED = 130


def train(
    data: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FOLDER",
            help="What to train on: digits (1,797 real ones, built in), fashion-mnist, or a folder with four IDX files "
            "in the MNIST form: train-images-idx3-ubyte and so on, gzipped or not.",
            show_default="digits",
        ),
    ] = None,
    norms: Annotated[
        list[str] | None,
        typer.Option(
            "--norm",
            metavar="NORM",
            help="batch, layer, group, instance or none; repeat it to compare several in one run.",
            show_default="batch",
        ),
    ] = None,
    impl: Annotated[
        str | None, typer.Option(metavar="normkit|torch", help="Whose layers to train with.", show_default="normkit")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Passes over the images.", show_default="10, for the digits 20")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Images per step.", show_default="256, for the digits 64")
    ] = None,
    lr: Annotated[float | None, typer.Option(metavar="RATE", help="Learning rate of SGD.", show_default="1.0")] = None,
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
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The run folder, new or empty.", show_default="runs/DATA-TIME"),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with the run in this folder, with its options.")
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

    Go on after Ctrl-C, to the same numbers as without it:

        normkit train --resume runs/digits-20250131-120000

    The same training on two ranks, with synchronized batch norms:

        torchrun --nproc-per-node 2 -m normkit.cli train --sync

    Exit status: 0 done; 1 --verify found too large a difference; 2 bad options or data; 130 interrupted.
    """
    from normkit import train as training

    if resume and out:
        raise UserError(f"--resume {resume} goes on in that folder: drop --out")
    options = {
        "data": data,
        "norms": norms,
        "impl": impl,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "threads": threads,
        "data_dir": data_dir,
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


def _run(config: "TrainConfig", out: Path | None, resume: Path | None, trace: bool, output: str) -> None:
    from normkit import train as training

    shapes = {name: training.trace(name, config.impl) for name in config.norms} if trace else {}
    if output == "table":
        for name, layers in shapes.items():
            print_trace(name, layers)
    try:
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
        print(json.dumps({**result.to_json(), **({"trace": shapes} if trace else {})}, allow_nan=False))
    else:
        print_result(result)
    if not result.passed:
        raise typer.Exit(EXIT_DIFFERENT)


def print_trace(norm: str, layers: list[tuple[str, tuple[int, ...]]]) -> None:
    """Print each layer's output shape for one image, as the publication does."""
    console.out.print(f"LeNet, norm {norm}:")
    for name, shape in layers:
        console.out.print(f"  {name + ' output shape:':<28} {shape}")
    console.out.print()


def print_result(result: "RunResult") -> None:
    """Print the comparison, the verification if there was one, and the names of the files."""
    console.print_table(
        "Result",
        ("norm", "train accuracy", "test accuracy", "seconds per epoch", "final loss"),
        [
            (
                norm.norm,
                f"{norm.epochs[-1].train_accuracy:.3f}",
                f"{norm.epochs[-1].test_accuracy:.3f}",
                f"{norm.seconds_per_epoch:.2f}",
                f"{norm.epochs[-1].train_loss:.3f}",
            )
            for norm in result.norms
        ],
    )
    if result.verdicts:
        print_verdicts(result)
    console.out.print(f"Everything is in {result.folder}:")
    for kind, suffixes in (("pictures", {".png"}), ("numbers", {".csv", ".json"}), ("checkpoints", {".pt"})):
        names = [name for name in result.files if Path(name).suffix in suffixes]
        console.out.print(f"  {kind:<12} {', '.join(names)}", soft_wrap=True)


def print_verdicts(result: "RunResult") -> None:
    """Print the largest differences from torch.nn."""
    from normkit.train.verify import GRADIENT_TOLERANCE, LOSS_TOLERANCE, RUNNING_TOLERANCE

    console.print_table(
        "Each step against torch.nn: largest relative difference",
        ("norm", "steps", "loss", "gradient", "running statistics", "verdict"),
        [
            (
                verdict.norm,
                f"{verdict.steps:,}",
                f"{verdict.loss:.1e}",
                f"{verdict.gradient:.1e}",
                f"{verdict.running:.1e}",
                "same" if verdict.passed else "DIFFERENT",
            )
            for verdict in result.verdicts
        ]
        + [("tolerance", "", f"{LOSS_TOLERANCE:.0e}", f"{GRADIENT_TOLERANCE:.0e}", f"{RUNNING_TOLERANCE:.0e}", "")],
    )
    console.print_table(
        "Separate trainings from the same first weights: largest relative difference",
        ("norm", "loss", "gradient", "running statistics", "weights", "test accuracy", "torch.nn's"),
        [
            (
                verdict.norm,
                f"{verdict.drift_loss:.1e}",
                f"{verdict.drift_gradient:.1e}",
                f"{verdict.drift_running:.1e}",
                f"{verdict.drift_weight:.1e}",
                f"{verdict.test_accuracy:.3f}",
                f"{verdict.twin_test_accuracy:.3f}",
            )
            for verdict in result.verdicts
        ],
    )
