"""``normkit bench``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from normkit.cli import console
from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit.bench.report import Section

EXIT_INTERRUPTED = 130
WIDTH_OF_FILES = 200


def bench(
    text: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Only rows whose name holds all of these words.")
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="mobilenet|resnet|lenet|convnext", help="Time this network's training step; repeatable."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The rows with bars and the smallest, in under a minute.")
    ] = False,
    regime: Annotated[
        str, typer.Option(metavar="default|kept|both", help="How the C library's allocator treats freed memory.")
    ] = "both",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads to compute with. [default: torch's choice]", show_default=False)
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Time torch.compile of torch.nn's layers too.")] = False,
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw a bar chart.")] = None,
    output: Annotated[str, typer.Option("--format", metavar="table|json", help="How to print the result.")] = "table",
) -> None:
    """Time our layers against torch.nn's, and both against a copy of the same bytes."""
    from normkit.bench import cases, environment, measure, progress, report, runner
    from normkit.bench.results import Measurements
    from normkit.bench.worker import Job

    if output not in ("table", "json"):
        raise UserError(f"--format must be table or json, not {output!r}")
    if regime not in (*environment.REGIMES, "both"):
        raise UserError(f"--regime must be one of {', '.join(environment.REGIMES)}, both, not {regime!r}")
    rows = tuple(cases.select(text, model or (), quick))
    effort = measure.QUICK if quick else measure.FULL
    regimes = environment.REGIMES if regime == "both" else [regime]
    measurements = Measurements()
    interrupted = False
    try:
        runner.run(
            [Job(rows, one, effort, threads, compiled) for one in regimes],
            measurements,
            progress.for_console(console.err),
        )
    except KeyboardInterrupt:
        interrupted = True
        console.err.print("interrupted; this is what was measured so far")
    if output == "json":
        print(json.dumps(measurements.to_json(), allow_nan=False))
    elif measurements.results:
        for line in report.environment_lines(measurements):
            console.out.print(line, soft_wrap=True)
        for section in report.sections(measurements):
            print_section(section)
    if plot is not None and measurements.results:
        from normkit.bench import picture

        picture.draw(measurements, plot)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)


def print_section(section: "Section") -> None:
    """Print a table and its notes; in a pipe or a file as wide as it needs to be."""
    wide = console.out if console.out.is_terminal else Console(highlight=False, width=WIDTH_OF_FILES)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(section.columns):
        if number == 0:
            table.add_column(column, min_width=20, overflow="fold")
        else:
            table.add_column(column, justify="right", no_wrap=True)
    for row in section.rows:
        table.add_row(*row)
    wide.print(section.title, soft_wrap=True, style="bold")
    wide.print(table)
    for note in section.notes:
        wide.print(note, soft_wrap=True)
    wide.print()
