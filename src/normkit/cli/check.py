"""``normkit check``: say what a normalization layer computes and what about it deviates."""

import ast
import json
from collections.abc import Iterable
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit.checking.report import Report, Section
    from normkit.checking.target.errors import CannotRunError


_EXIT = {"equivalent": 0, "not equivalent": 1, "not judged": 2}


class Format(StrEnum):
    """The format of the report."""

    text = "text"
    json = "json"
    github = "github"


def check(
    target: Annotated[
        str | None, typer.Argument(help="path/to/file.py:Name or package.module:Name", show_default=False)
    ] = None,
    family: Annotated[
        str | None, typer.Option("--as", help="What it is meant to be: batch, layer, group, instance or rms.")
    ] = None,
    features: Annotated[int | None, typer.Option(help="Number of channels or features to build it with.")] = None,
    init: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for its constructor; may be repeated.", show_default=False)
    ] = None,
    call: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for its call; may be repeated.", show_default=False)
    ] = None,
    convention: Annotated[
        str | None, typer.Option(help="Whose momentum and running variance apply: torch, keras, flax or onnx.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="How to print the report.")] = Format.text,
    timeout: Annotated[float, typer.Option(help="Seconds after which the target is stopped.")] = 60.0,
    list_codes: Annotated[bool, typer.Option("--list", help="List every check and stop.")] = False,
    explain: Annotated[str | None, typer.Option(help="Explain the check with this CODE and stop.")] = None,
) -> None:
    """Check anybody's normalization layer: what it computes, what deviates, why it matters, how to fix it.

    TARGET is a torch module, a plain class or a function, on torch tensors, NumPy or JAX arrays. Its code is run, in a
    process of its own.

    Exit status: 0 equivalent, 1 not equivalent: findings of severity error, 2 it could not be run or not be judged, 3
    a bug of normkit's.
    """
    if list_codes:
        _print_list()
        return
    if explain is not None:
        _explain(explain)
        return
    if target is None:
        raise UserError(
            "expected a TARGET such as layers.py:BatchNorm2d (or --list, or --explain CODE); none was given"
        )
    from normkit.checking.options import Options
    from normkit.checking.process import check_target
    from normkit.checking.target.errors import CannotRunError

    options = Options(family, features, _values(init, "--init"), _values(call, "--call"), convention)
    try:
        report = check_target(target, options, timeout, fork=True)
    except CannotRunError as error:
        _print_stopped(target, error, output)
        raise
    except UserError:
        raise
    except Exception as error:
        if output is Format.json:
            typer.echo(json.dumps({"target": target, "error": str(error), "ok": False, "bug": True}, indent=2))
        raise
    _print(report, output)
    raise typer.Exit(_EXIT[report.verdict])


def _values(pairs: list[str] | None, option: str) -> dict[str, Any]:
    """Read NAME=VALUE pairs; a value is a Python literal, or else a word."""
    values = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise UserError(f"{option} expects NAME=VALUE, but {pair!r} was given: write {option} eps=1e-3")
        try:
            values[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            values[name] = {"true": True, "false": False}.get(text, text)
    return values


def _print(report: "Report", output: Format) -> None:
    from normkit.checking.github import annotations

    if output is Format.json:
        typer.echo(json.dumps(report.to_dict(), indent=2))
    elif output is Format.github:
        if report.findings:
            typer.echo(annotations(report.findings, report.source, report.line))
        typer.echo(report.conclusion())
    else:
        _print_blocks(report.target, report.sections(), report.conclusion(), style=_VERDICTS[report.verdict])


def _print_stopped(target: str, error: "CannotRunError", output: Format) -> None:
    """Print what was found before the target ended its process; the caller prints the error itself."""
    from normkit.checking.github import annotations

    if output is Format.json:
        findings = [asdict(finding) for finding in error.findings]
        typer.echo(json.dumps({"target": target, "error": str(error), "findings": findings, "ok": False}, indent=2))
    elif error.findings and output is Format.github:
        typer.echo(annotations(error.findings))
    elif error.findings:
        _print_blocks(target, [finding.section() for finding in error.findings])


def _print_blocks(target: str, sections: Iterable["Section"], conclusion: str = "", style: str = "") -> None:
    """Print plain text to a file or a pipe; use colours and the full width on a terminal."""
    from rich.console import Console
    from rich.text import Text

    from normkit.checking.report import wrapped

    console = Console(highlight=False)
    if not console.is_terminal:
        blocks = [target, *map(str, sections), *([wrapped(conclusion)] if conclusion else [])]
        typer.echo("\n\n".join(blocks))
        return
    console.print(Text(target, style="bold"))
    for section in sections:
        console.print()
        _print_section(console, section)
    if conclusion:
        console.print()
        console.print(Text(conclusion, style=style))


_VERDICTS = {"equivalent": "bold green", "not equivalent": "bold red", "not judged": "bold yellow"}
_STYLES = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan", None: "bold"}


def _print_section(console: Any, section: "Section") -> None:
    console.print(_heading(section))
    _print_below(console, section, indent=2)


def _print_below(console: Any, section: "Section", indent: int) -> None:
    """Print the lines of a section and the sections within it."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=16, no_wrap=True)
    table.add_column()
    for label, text in section.lines:
        table.add_row(label, Text(text))
    console.print(Padding(table, (0, 0, 0, indent)), end="")
    for part in section.parts:
        console.print(Padding(_heading(part), (0, 0, 0, indent)))
        _print_below(console, part, indent + 2)


def _heading(section: "Section") -> Any:
    """The heading of a section; of a finding, its severity and code in colour."""
    from rich.text import Text

    heading = Text(section.heading)
    heading.stylize(_STYLES[section.severity], 0, len(section.heading.partition(": ")[0]) if section.severity else None)
    return heading


def _print_list() -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from normkit.checking.rules import RULES

    rows = [
        (code, rule.severity, "core" if rule.core else "edge" if rule.edge else "", rule.section("what"))
        for code, rule in RULES.items()
    ]
    console = Console(highlight=False)
    if console.is_terminal:
        table = Table.grid(padding=(0, 2))
        for code, severity, place, what in rows:
            table.add_row(Text(code, style="bold", no_wrap=True), Text(severity), Text(place), Text(what))
        console.print(table)
    else:
        width = max(len(code) for code in RULES)
        for code, severity, place, what in rows:
            typer.echo(f"{code:<{width}}  {severity:<7}  {place:<4}  {what}")
    typer.echo(
        f"\n{len(RULES)} checks. normkit check --explain CODE says why each matters and how to fix it.\n"
        "core: only where all of these passed, or do not apply, a target is equivalent; edge: shown last, in short."
    )


def _explain(code: str) -> None:
    from difflib import get_close_matches

    from rich.console import Console

    from normkit.checking.rules import RULES

    if code not in RULES:
        close = get_close_matches(code, RULES, n=1)
        hint = f"did you mean {close[0]}?" if close else "normkit check --list names them all"
        raise UserError(f"no check has the code {code!r}: {hint}")
    console, section = Console(highlight=False), RULES[code].documentation()
    if console.is_terminal:
        _print_section(console, section)
    else:
        typer.echo(str(section))
