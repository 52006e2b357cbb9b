"""``normkit bench``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from normkit.cli import console
from normkit.errors import UserError
from normkit.threads import check_threads

if TYPE_CHECKING:
    from normkit.bench.section import Section

EXIT_INTERRUPTED = 130
WIDTH_OF_FILES = 200


def bench(
    text: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Only rows whose name holds all of these words.")
    ] = "",
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NETWORK",
            help="Time a whole training step of mobilenet, resnet, lenet or convnext instead; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The main and the smallest cases alone, in less than a minute.")
    ] = False,
    regime: Annotated[
        str,
        typer.Option(
            metavar="default|kept|both",
            help="Whether the C library's allocator works as it does by default, or keeps freed memory.",
        ),
    ] = "both",
    threads: Annotated[
        int | None, typer.Option(metavar="N", help="Threads to compute with.", show_default="torch's choice")
    ] = None,
    compiled: Annotated[bool, typer.Option("--compile", help="Time torch.compile of torch.nn's layers too.")] = False,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Instead: errors against float64, by the mean/std of the input.")
    ] = False,
    memory: Annotated[bool, typer.Option("--memory", help="Instead: bytes kept for backward.")] = False,
    start: Annotated[bool, typer.Option("--start", help="Instead: imports and the first step of a process.")] = False,
    crossover: Annotated[
        bool, typer.Option("--crossover", help="Instead: the size from which on kernels beat torch's own operations.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw it, as PNG, SVG or PDF.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Run everything and write it there, with pictures; interrupted, print what there is.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[str, typer.Option("--format", metavar="table|json", help="How to print the result.")] = "table",
) -> None:
    """Time our layers against torch.nn's, and both against a copy of the same bytes.

    A row is a layer, an input and a pass (forward, evaluation, forward+backward); a ratio above 1 says that we are
    faster. Every row is measured in a process as it is by default and in one whose allocator keeps its memory.

    [bold]Examples[/bold]

    A first look:

        normkit bench --quick

    All batch norms in channels-last memory, on one thread:

        normkit bench --filter "batchnorm channels_last" --threads 1

    A whole training step, with a picture:

        normkit bench --model mobilenet --plot mobilenet.png

    Exit status: 0 done, whatever was found; 2 bad options; 130 interrupted, after printing what was measured so far.
    """
    import torch

    from normkit.bench import cases, environment, progress
    from normkit.bench.accuracy import Accuracy
    from normkit.bench.crossover import Crossover
    from normkit.bench.document import Document
    from normkit.bench.memory import Memory
    from normkit.bench.runner import Times
    from normkit.bench.start import Start

    instead = {Accuracy: accuracy, Memory: memory, Start: start, Crossover: crossover}
    chosen = [kind for kind, wanted in instead.items() if wanted]
    if output not in ("table", "json"):
        raise UserError(f"--format must be table or json, not {output!r}")
    if threads is not None:
        check_threads(threads)
    if len(chosen) + (markdown is not None) > 1:
        raise UserError("choose one of --accuracy, --memory, --start, --crossover and --markdown")
    if chosen and (text or model or quick or compiled or regime != "both"):
        raise UserError(f"--{chosen[0].__name__.lower()} measures cases of its own: leave the choice of rows away")
    if markdown is not None and plot is not None:
        raise UserError("--markdown draws its own pictures: leave --plot away")
    if plot is not None and chosen not in ([], [Accuracy]):
        raise UserError(f"--plot draws times and --accuracy; there is no picture of --{chosen[0].__name__.lower()}")
    for file, suffixes in ((plot, (".png", ".svg", ".pdf")), (markdown, (".md",))):
        if file is not None and (file.suffix not in suffixes or not file.parent.is_dir()):
            raise UserError(f"expected a file {' or '.join(suffixes)} in a folder that exists; got {file}")
        if file is not None:
            _try(file)
    if chosen and threads is not None:
        torch.set_num_threads(threads)
    benchmark = (
        chosen[0]() if chosen else Times.of(cases.select(text, model or (), quick), regime, threads, quick, compiled)
    )
    if markdown is not None and isinstance(benchmark, Times):
        benchmark = Document(benchmark)
    interrupted = False
    try:
        benchmark.run(progress.for_console(console.err))
    except KeyboardInterrupt:
        interrupted = True
        console.err.print("interrupted; this is what was measured so far")
    if output == "json":
        print(json.dumps({**benchmark.to_json(), "interrupted": interrupted}, allow_nan=False))
    elif markdown is None or interrupted:
        for section in (environment.section(benchmark.environment), *benchmark.sections()):
            print_section(section)
    if interrupted:
        raise typer.Exit(EXIT_INTERRUPTED)
    if plot is not None and isinstance(benchmark, (Times, Accuracy)):
        benchmark.draw(plot)
    if markdown is not None and isinstance(benchmark, Document):
        benchmark.write(markdown)
        console.err.print(f"written: {markdown}, and pictures in {markdown.parent / 'images'}", soft_wrap=True)


def _try(file: Path) -> None:
    """Fail before all that is measured if a file could not be written then."""
    existed = file.exists()
    try:
        file.open("ab").close()
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}): name another file") from None
    if not existed:
        file.unlink()


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
        table.add_row(*map(escape, row))
    wide.print(section.title, soft_wrap=True, style="bold", markup=False)
    wide.print(table)
    for note in section.notes:
        wide.print(note, soft_wrap=True, markup=False)
    wide.print()
