"""``normkit bench``: one command for each question."""

from pathlib import Path
from typing import Annotated, Any

import typer

from normkit.cli import bench_output, console
from normkit.cli.options import Format, Plot, Threads, completing, writable
from normkit.cli.plain import PlainCommand, PlainGroup
from normkit.errors import UserError
from normkit.extras import require

_REGIMES = "default|retained|both"
_NETWORKS = "mobilenet|resnet|lenet|convnext"


class BenchGroup(PlainGroup):
    """The benchmarks; where none is named, it is ``times``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``times`` before options that come without a command."""
        name = args[0].removeprefix("--") if args and args[0].startswith("--") else ""
        if name in self.commands:
            raise UserError(f"{args[0]} is a command, not an option: normkit bench {name}")
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["times", *args]
        return super().parse_args(ctx, args)


bench = typer.Typer(name="bench", cls=BenchGroup)

Compiled = Annotated[bool, typer.Option("--compile", help="Time torch.compile of torch.nn's layers too.")]


@bench.callback()
def group() -> None:
    """Measure our layers beside torch.nn's: time, accuracy, memory, start.

    Every command prints the machine, a table and what it means; --format json prints the same as one JSON object.
    Ctrl-C prints what was measured so far. Without a command, times runs.

    [bold]Examples[/bold]

    A first look:

        normkit bench times --quick

    The errors of float32 results, with a picture:

        normkit bench accuracy --plot accuracy.png

    Exit status: 0 done, whatever was found; 2 bad options; 130 interrupted.
    """


@bench.command(cls=PlainCommand)
def times(
    text: Annotated[
        str, typer.Option("--filter", metavar="TEXT", help="Only rows whose name holds all of these words.")
    ] = "",
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar=_NETWORKS,
            autocompletion=completing(_NETWORKS),
            help="Time a whole training step of this network instead; repeat it for several.",
            show_default=False,
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The main and the smallest cases alone, in less than a minute.")
    ] = False,
    regime: Annotated[
        str,
        typer.Option(
            metavar=_REGIMES,
            autocompletion=completing(_REGIMES),
            help="Whether the C library's allocator works as it does by default, or retains freed memory.",
        ),
    ] = "both",
    threads: Threads = None,
    beside: Annotated[
        int, typer.Option(metavar="N", min=0, help="Processes that compute meanwhile, as on a machine that is shared.")
    ] = 0,
    compiled: Compiled = False,
    plot: Plot = None,
    output: Format = "table",
) -> None:
    """Time our layers against torch.nn's, and both against a copy of the same bytes.

    A row is a layer, an input and a pass (forward, evaluation, forward+backward); a ratio above 1 says that we are
    faster. Every row is measured in a process as it is by default and in one whose allocator keeps its memory.

    [bold]Examples[/bold]

    A first look:

        normkit bench times --quick

    All batch norms in channels-last memory, on one thread:

        normkit bench times --filter "batchnorm channels_last" --threads 1

    A whole training step, with a picture:

        normkit bench times --model mobilenet --plot mobilenet.png

    Exit status: 0 done, whatever was found; 2 bad options; 130 interrupted, after printing what was measured so far.
    """
    from normkit.bench.runner import Times
    from normkit.bench.table import select

    _use_threads(threads)
    rows = select(text, models or (), quick=quick)
    benchmark = Times.of(rows, regime, threads=threads, quick=quick, compiled=compiled, beside=beside)
    bench_output.run(benchmark, output)
    if plot is not None:
        benchmark.draw(plot)


@bench.command(cls=PlainCommand)
def accuracy(threads: Threads = None, plot: Plot = None, output: Format = "table") -> None:
    """Compare float32 results with float64, as the mean of the input grows beyond its standard deviation.

    The errors of our kernels, of torch.nn, and of the formula that reads its input once (the mean of the squares less
    the square of the mean), in units in the last place.

    [bold]Examples[/bold]

    A table, and the same as a picture:

        normkit bench accuracy --plot accuracy.png
    """
    from normkit.bench.accuracy import Accuracy

    _use_threads(threads)
    benchmark = Accuracy()
    bench_output.run(benchmark, output)
    if plot is not None:
        benchmark.draw(plot)


@bench.command(cls=PlainCommand)
def memory(output: Format = "table") -> None:
    """Count the bytes that a layer keeps between forward and backward.

    [bold]Examples[/bold]

    The cases in which we keep more than torch.nn:

        normkit bench memory | grep more
    """
    from normkit.bench.memory import Memory

    bench_output.run(Memory(), output)


@bench.command(cls=PlainCommand)
def start(output: Format = "table") -> None:
    """Time the imports and the first training step of a process.

    Twice with nothing compiled yet, five times with kernels on disk, each in a process of its own.

    [bold]Examples[/bold]

    What a new installation costs once, and every process afterwards:

        normkit bench start
    """
    from normkit.bench.start import Start

    bench_output.run(Start(), output)


@bench.command(cls=PlainCommand)
def crossover(threads: Threads = None, output: Format = "table") -> None:
    """Find the size of the input from which on kernels beat torch's own operations.

    The last column is the size from which on normkit chooses a kernel.

    [bold]Examples[/bold]

    On one thread:

        normkit bench crossover --threads 1
    """
    from normkit.bench.crossover import Crossover

    _use_threads(threads)
    bench_output.run(Crossover(), output)


@bench.command(cls=PlainCommand)
def sync(
    ranks: Annotated[int, typer.Option(metavar="N", min=1, help="Number of processes.")] = 2,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Timed steps of each network.")] = 50,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Images on each rank.")] = 16,
    size: Annotated[int, typer.Option(metavar="N", min=2, help="Rows and columns of an image.")] = 32,
    threads: Annotated[int, typer.Option(metavar="N", help="Threads of each rank.")] = 1,
    output: Format = "table",
) -> None:
    """Time a training step on several ranks, by the kind of batch norm.

    The same network with torch.nn's batch norm on each rank, with ours on each rank, and with SyncBatchNorm, under
    DistributedDataParallel. The ranks are processes of this machine and need no torchrun.

    [bold]Examples[/bold]

    Four ranks with small batches:

        normkit bench sync --ranks 4 --batch 4
    """
    from normkit.bench.sync import SyncOverhead
    from normkit.bench.sync_rank import Settings
    from normkit.threads import check_threads

    check_threads(threads)
    bench_output.run(SyncOverhead(Settings(ranks, steps, batch, size, threads)), output)


@bench.command(cls=PlainCommand)
def huge_pages(
    processes: Annotated[int, typer.Option(metavar="N", min=1, help="Processes of each kind.")] = 8,
    output: Format = "table",
) -> None:
    """Time a training step with huge pages for its large results, and without.

    [bold]Examples[/bold]

    More processes, for a steadier median:

        normkit bench huge-pages --processes 20
    """
    from normkit.bench.huge_pages import HugePages

    bench_output.run(HugePages(processes), output)


@bench.command(cls=PlainCommand)
def report(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write, NAME.md.", show_default=False)],
    quick: Annotated[bool, typer.Option("--quick", help="Time the main and the smallest cases alone.")] = False,
    threads: Threads = None,
    compiled: Compiled = False,
    output: Format = "table",
) -> None:
    """Measure times, accuracy, memory, start and crossover, and write all of it as Markdown.

    Pictures go to the folder images beside the file. Interrupted, it prints what there is and leaves the file as it
    was. --format json prints the numbers as well.

    [bold]Examples[/bold]

    The tables of this machine, with fewer rows of times:

        normkit bench report benchmarks.md --quick
    """
    from normkit.bench.document import Document
    from normkit.bench.runner import Times
    from normkit.bench.table import select

    require("a picture", "cli", "matplotlib")
    writable(file, ".md")
    _use_threads(threads)
    document = Document(Times.of(select(quick=quick), threads=threads, quick=quick, compiled=compiled))
    completed = bench_output.measure(document)
    if output == "json" or not completed:
        bench_output.print_results(document, output, completed=completed)
    if not completed:
        raise typer.Exit(bench_output.EXIT_INTERRUPTED)
    document.write(file)
    console.err.print(f"written: {file}, and pictures in {file.parent / 'images'}", soft_wrap=True)


def _use_threads(threads: int | None) -> None:
    import torch

    from normkit.threads import check_threads

    if threads is not None:
        check_threads(threads)
        torch.set_num_threads(threads)
