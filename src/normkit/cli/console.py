"""The output of commands: a console for results, one for progress, and one look of tables."""

import json
from collections.abc import Sequence
from typing import Any

import typer
from rich.console import Console
from rich.table import Table

from normkit.json_types import finite

out = Console(highlight=False)
"""Results."""

err = Console(stderr=True, highlight=False)
"""Progress and messages, so that results can be piped."""


def print_json(tree: Any) -> None:
    """Print JSON types as one line, for a program to read."""
    typer.echo(json.dumps(finite(tree), allow_nan=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print ``rows`` under ``columns``, the first column to the left and all others to the right."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*row)
    out.print(table)
