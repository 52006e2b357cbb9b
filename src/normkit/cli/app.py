"""The ``normkit`` application: one line a command. Each command's file imports what it runs only when it runs."""

from importlib.metadata import version
from typing import Annotated

import typer

from normkit.cli.bench import bench
from normkit.cli.check import check
from normkit.cli.conventions import conventions
from normkit.cli.convert import convert
from normkit.cli.diagnose import diagnose
from normkit.cli.explain import explain
from normkit.cli.fold import fold
from normkit.cli.parameter_groups import parameter_groups
from normkit.cli.plain import PlainCommand, PlainGroup
from normkit.cli.port import port
from normkit.cli.recalibrate import recalibrate
from normkit.cli.train import train
from normkit.cli.warmup import warmup

app = typer.Typer(
    name="normkit",
    cls=PlainGroup,
    help="A normalization toolkit for PyTorch and NumPy.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

_COMMANDS = (
    check,
    conventions,
    convert,
    diagnose,
    explain,
    fold,
    parameter_groups,
    port,
    recalibrate,
    train,
    warmup,
)
app.add_typer(bench)
for command in _COMMANDS:
    app.command(cls=PlainCommand)(command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"normkit {version('normkit')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Normalization layers that are right and fast, and tools that name what is wrong with yours."""
