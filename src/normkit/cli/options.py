"""Options that several commands have."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.extras import require


def completing(words: str) -> Callable[[str], list[str]]:
    """Return what a shell asks on TAB: the values of an option that begin as typed.

    Args:
        words: The values, as a metavar writes them: "table|json"; words in upper case stand for something else.
    """
    values = [word for word in words.split("|") if word.islower()]
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def _one_of_formats(output: str) -> str:
    if output not in ("table", "json"):
        raise UserError(f"--format must be table or json, not {output!r}{did_you_mean(output, ('table', 'json'))}")
    return output


def writable(file: Path, *suffixes: str) -> Path:
    """Return a file that can be written; say so before all the work if it cannot."""
    if file.suffix not in suffixes or not file.parent.is_dir():
        raise UserError(f"expected a file {' or '.join(suffixes)} in a folder that exists; got {file}")
    existed = file.exists()
    try:
        file.open("ab").close()
    except OSError as error:
        raise UserError(f"{file} cannot be written ({error.strerror}): name another file") from None
    if not existed:
        file.unlink()
    return file


def _picture(file: Path | None) -> Path | None:
    if file is None:
        return None
    require("a picture", "cli", "matplotlib")
    return writable(file, ".png", ".svg", ".pdf")


Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="table|json",
        help="How to print the result.",
        callback=_one_of_formats,
        autocompletion=completing("table|json"),
    ),
]
Plot = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="Draw it, as PNG, SVG or PDF.", show_default=False, callback=_picture),
]
Threads = Annotated[
    int | None, typer.Option(metavar="N", help="Threads to compute with.", show_default="torch's choice")
]
