"""The run of one benchmark: its progress, its tables or JSON, and Ctrl-C, which keeps what was measured."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from normkit.cli import console

if TYPE_CHECKING:
    from normkit.bench.section import Benchmark, Section

EXIT_INTERRUPTED = 130
WIDTH_OF_FILES = 200


def run(benchmark: "Benchmark", output: str) -> None:
    """Measure and print; exit where it was interrupted."""
    completed = measure(benchmark)
    print_results(benchmark, output, completed=completed)
    if not completed:
        raise typer.Exit(EXIT_INTERRUPTED)


def measure(benchmark: "Benchmark") -> bool:
    """Measure with progress; return False where it was interrupted."""
    from normkit.bench import environment
    from normkit.cli import progress

    warning = environment.busy(benchmark.environment)
    if warning:
        console.err.print(warning, soft_wrap=True)
    try:
        benchmark.run(progress.of_benchmark())
    except KeyboardInterrupt:
        console.err.print("interrupted; this is what was measured so far")
        return False
    return True


def print_results(benchmark: "Benchmark", output: str, *, completed: bool) -> None:
    """Print the results so far, as tables or as JSON."""
    from normkit.bench import environment

    if output == "json":
        console.print_json({**benchmark.to_json(), "interrupted": not completed})
        return
    for section in (environment.section(benchmark.environment), *benchmark.sections()):
        print_section(section)


def print_section(section: "Section") -> None:
    """Print a table and its notes: in a pipe or a file as wide as it needs.

    On a terminal that is too narrow the first column gets lines of its own, above the others; on one that is too narrow
    for these too, each row is a sentence.
    """
    wide = console.out if console.out.is_terminal else Console(highlight=False, width=WIDTH_OF_FILES)
    below = _aligned([section.columns[1:], *(row[1:] for row in section.rows)])
    wide.print(section.title, soft_wrap=True, style="bold", markup=False)
    table = _table(section)
    if wide.measure(table, options=wide.options.update(max_width=WIDTH_OF_FILES)).maximum <= wide.width:
        wide.print(table)
    elif len(section.columns) > 2 and max(map(len, below)) <= wide.width:
        wide.print(below[0], style="dim", markup=False)
        for number, (row, line) in enumerate(zip(section.rows, below[1:], strict=True)):
            if not number or row[0] != section.rows[number - 1][0]:
                wide.print(row[0], style="bold", markup=False)
            wide.print(line, markup=False)
    else:
        for name, *cells in section.rows:
            named = [f"{column} {cell}" for column, cell in zip(section.columns[1:], cells, strict=True) if cell]
            wide.print(f"{name}: {'; '.join(named) if len(cells) > 1 else cells[0]}", markup=False)
    for note in section.notes:
        wide.print(note, soft_wrap=True, markup=False)
    wide.print()


def _table(section: "Section") -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(section.columns):
        table.add_column(column, justify="left" if number == 0 else "right", no_wrap=True)
    for row in section.rows:
        table.add_row(*map(escape, row))
    return table


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines whose cells end in the same columns."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:>{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
