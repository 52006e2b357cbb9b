"""What ``normkit check`` prints: reports, tables of many targets, the list of checks."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING

import typer

from normkit.cli import console

if TYPE_CHECKING:
    from normkit.checking.report import Finding, Report, Section
    from normkit.checking.summary import Entry, Summary
    from normkit.checking.target.errors import CannotRunError


class Format(StrEnum):
    """The format of the report."""

    text = "text"
    json = "json"
    github = "github"


def print_report(report: "Report", output: Format) -> None:
    """Print the report of one target."""
    if output is Format.json:
        console.print_json(report.to_dict())
    elif output is Format.github:
        _print_annotations(report)
        typer.echo(report.conclusion())
    elif console.out.is_terminal:
        console.out.print(report)
    else:
        typer.echo(str(report))


def print_stopped(target: str, error: "CannotRunError", output: Format) -> None:
    """Print what was found before the target ended its process, and why it ended where that is read by a program.

    The caller prints the error itself, for people.
    """
    if output is Format.json:
        findings = [asdict(finding) for finding in error.findings]
        console.print_json({"target": target, "error": str(error), "findings": findings, "ok": False})
    elif output is Format.github:
        _print_annotations_of_none(target, "not run", str(error), error.findings)
    elif error.findings:
        _print_blocks(target, [finding.section() for finding in error.findings])


def print_bug(target: str, error: Exception, output: Format) -> None:
    """Print a document or an annotation for a bug of ours; the caller prints the error itself."""
    if output is Format.json:
        console.print_json({"target": target, "error": str(error), "ok": False, "bug": True})
    elif output is Format.github:
        _print_annotations_of_none(target, "bug", str(error))


def print_summary(summary: "Summary", output: Format, *, reports: bool) -> None:
    """Print what came of many targets.

    Args:
        summary: What came of them.
        output: The format.
        reports: Whether to print each report too, before the table; JSON has them all the same.
    """
    if output is Format.json:
        console.print_json(summary.to_dict())
        return
    for entry in summary.entries:
        if output is Format.github:
            _print_entry_annotations(entry)
        elif reports:
            _print_entry(entry)
    if output is Format.github:
        typer.echo(summary.conclusion())
    else:
        _print_table(summary)


def _print_entry(entry: "Entry") -> None:
    if entry.report is not None:
        print_report(entry.report, Format.text)
    else:
        sections = [finding.section() for finding in entry.findings]
        _print_blocks(entry.target, sections, f"{entry.status}: {entry.error}", _style(entry.status))
    typer.echo("\n")


def _print_entry_annotations(entry: "Entry") -> None:
    if entry.report is not None:
        _print_annotations(entry.report)
        typer.echo(f"{entry.target}: {entry.report.conclusion()}")
        return
    if entry.exit_status:
        _print_annotations_of_none(entry.target, entry.status, entry.error, entry.findings)
    typer.echo(f"{entry.target}: {entry.status}")


def _print_annotations_of_none(target: str, verdict: str, reason: str, findings: "Sequence[Finding]" = ()) -> None:
    """Print the annotations of a target that has no report."""
    from normkit.checking.candidates import place_of
    from normkit.checking.github import annotation_of, annotations

    place = place_of(target)
    if findings:
        typer.echo(annotations(findings, *place))
    typer.echo(annotation_of(verdict, reason, *place))


def _print_annotations(report: "Report") -> None:
    from normkit.checking.github import annotation_of, annotations

    if report.findings:
        typer.echo(annotations(report.findings, report.source, report.line))
    if report.verdict == "not judged":
        typer.echo(annotation_of(report.verdict, "; ".join(report.not_judged), report.source, report.line))


def _print_table(summary: "Summary") -> None:
    """Print columns to a file or a pipe, a line a target; on a terminal that is too narrow, two lines."""
    from rich.padding import Padding
    from rich.text import Text

    from normkit.checking.summary import COLUMNS, aligned

    if not console.out.is_terminal:
        typer.echo(str(summary))
        return
    rows = [entry.row() for entry in summary.entries]
    folder = os.path.commonpath([row[0] for row in rows]) if len(rows) > 1 else ""
    if os.path.isdir(folder):
        console.out.print(Text(folder, style="bold"))
        rows = [(row[0].removeprefix(folder).lstrip(os.sep), *row[1:]) for row in rows]
    head, *lines = aligned([COLUMNS, *rows])
    one_line = all(len(cells) + len(reason) <= console.out.width for cells, reason in (head, *lines))
    console.out.print(Text(f"{head[0]}{head[1] if one_line else ''}".rstrip(), style="dim"), soft_wrap=True)
    for (cells, reason), entry in zip(lines, summary.entries, strict=True):
        line = Text(cells)
        line.highlight_regex(rf"(?<=  ){entry.status}(?=  )", _style(entry.status))
        if one_line:
            line.append(reason)
        console.out.print(line, soft_wrap=True)
        if reason and not one_line:
            console.out.print(Padding(Text(reason, style="dim"), (0, 0, 0, 4)))
    console.out.print()
    console.out.print(Text(summary.conclusion(), style="bold"))


def _print_blocks(target: str, sections: Iterable["Section"], conclusion: str = "", style: str = "") -> None:
    """Print plain text to a file or a pipe; use colours and the full width on a terminal."""
    from rich.text import Text

    from normkit.checking.report import wrapped

    if not console.out.is_terminal:
        blocks = [target, *map(str, sections), *([wrapped(conclusion)] if conclusion else [])]
        typer.echo("\n\n".join(blocks))
        return
    console.out.print(Text(target, style="bold"))
    for section in sections:
        console.out.print()
        console.out.print(section)
    if conclusion:
        console.out.print()
        console.out.print(Text(conclusion, style=style))


_STATUS_STYLES = {"not run": "bold yellow", "no layer": "dim", "bug": "bold magenta", "interrupted": "dim"}
"""Colours of what is no verdict."""


def _style(status: str) -> str:
    from normkit.checking.report import STYLES

    return STYLES.get(status) or _STATUS_STYLES[status]


def print_list() -> None:
    """Print every check, a line each."""
    from rich.table import Table
    from rich.text import Text

    from normkit.checking.rules import RULES

    rows = [
        (code, rule.severity, "core" if rule.core else "edge" if rule.edge else "", rule.section("what"))
        for code, rule in RULES.items()
    ]
    if console.out.is_terminal:
        table = Table.grid(padding=(0, 2))
        for code, severity, place, what in rows:
            table.add_row(Text(code, style="bold", no_wrap=True), Text(severity), Text(place), Text(what))
        console.out.print(table)
    else:
        width = max(len(code) for code in RULES)
        for code, severity, place, what in rows:
            typer.echo(f"{code:<{width}}  {severity:<7}  {place:<4}  {what}")
    typer.echo(
        f"\n{len(RULES)} checks. normkit check --explain CODE says why each matters and how to fix it.\n"
        "core: only where all of these passed, or do not apply, a target is equivalent; edge: shown last, in short."
    )


def print_explanation(code: str) -> None:
    """Print what a check looks for, why it matters and how to fix it."""
    from normkit.checking.rules import RULES, known_code

    section = RULES[known_code(code)].documentation()
    if console.out.is_terminal:
        console.out.print(section)
    else:
        typer.echo(str(section))
