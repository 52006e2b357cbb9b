"""The output of commands: a console for results and one for progress."""

import json
from typing import Any

import typer
from rich.console import Console

from normkit.json_types import finite

out = Console(highlight=False)
"""Results."""

err = Console(stderr=True, highlight=False)
"""Progress and messages, so that results can be piped."""


def print_json(tree: Any) -> None:
    """Print JSON types as one line, for a program to read."""
    typer.echo(json.dumps(finite(tree), allow_nan=False))
