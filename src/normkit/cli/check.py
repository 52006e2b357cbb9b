"""``normkit check``: say what a normalization layer computes and what about it deviates."""

import ast
from typing import TYPE_CHECKING, Annotated, Any

import typer

from normkit.cli.check_output import (
    Format,
    print_bug,
    print_explanation,
    print_list,
    print_report,
    print_stopped,
    print_summary,
)
from normkit.cli.options import completing
from normkit.errors import UserError

if TYPE_CHECKING:
    from normkit.checking.candidates import Candidate
    from normkit.checking.options import Options
    from normkit.checking.summary import Entry

_INTERRUPTED = 130
_FAMILIES = "batch|layer|group|instance|rms"
_CONVENTIONS = "torch|keras|flax|onnx"


def check(
    targets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="TARGET",
            help="path/to/file.py:Name, package.module:Name, a file or a folder.",
            show_default=False,
        ),
    ] = None,
    summary: Annotated[bool, typer.Option("--summary", help="Print one line a target instead of reports.")] = False,
    jobs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Targets that are checked at a time.", show_default="one a processor"),
    ] = None,
    family: Annotated[
        str | None,
        typer.Option("--as", metavar=_FAMILIES, help="What it is meant to be.", autocompletion=completing(_FAMILIES)),
    ] = None,
    features: Annotated[int | None, typer.Option(help="Number of channels or features to build it with.")] = None,
    init: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE for its constructor; may be repeated.", show_default=False)
    ] = None,
    call: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE for its call; may be repeated. ones, zeros, randn, mask, randint(K) fit its input.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="The method that is the forward pass.", show_default=False)
    ] = None,
    adapter: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:make",
            help="A function that takes the target and returns a callable of x alone.",
            show_default=False,
        ),
    ] = None,
    convention: Annotated[
        str | None,
        typer.Option(
            metavar=_CONVENTIONS,
            help="Whose momentum and running variance apply.",
            autocompletion=completing(_CONVENTIONS),
        ),
    ] = None,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="CODES", help="Only these checks count; may be repeated.", show_default=False),
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option(metavar="CODES", help="These checks do not count; may be repeated.", show_default=False),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings count as errors do.")] = False,
    output: Annotated[Format, typer.Option("--format", help="How to print the report.")] = Format.text,
    timeout: Annotated[float, typer.Option(help="Seconds after which a target is stopped.")] = 60.0,
    list_codes: Annotated[bool, typer.Option("--list", help="List every check and stop.")] = False,
    explain: Annotated[str | None, typer.Option(help="Explain the check with this CODE and stop.")] = None,
) -> None:
    """Check anybody's normalization layer: what it computes, what deviates, why it matters, how to fix it.

    TARGET is a torch module, a plain class or a function, on torch tensors, NumPy or JAX arrays. Of a file or a folder
    every layer is checked whose name tells that it is one. Its code is run, each target in a process of its own.

    Exit status: 0 equivalent; 1 not equivalent, with findings of severity error; 2 it could not be run, or not be
    judged; 3 a bug of normkit's. Of several targets the highest one. What is ignored, or not selected, does not count
    for it, and is named in the last line.

    [bold]Examples[/bold]

    One layer, in a file or in a module:

        normkit check layers.py:BatchNorm2d
        normkit check my_package.norms:Normalize --as layer

    A further input of the call, made to the input's shape; or anything else, by a function of a few lines:

        normkit check layers.py:MaskedNorm --call mask=ones --call "labels=randint(10)"
        normkit check layers.py:StyleNorm --adapter adapt.py:make

    Every layer of all submissions, a line each, or all reports as one JSON document:

        normkit check submissions/ --summary
        normkit check submissions/ --format json > reports.json

    In a pipeline, with a known deviation, or warnings as well:

        normkit check layers.py:BatchNorm2d --ignore biased-running-var,momentum-inverted
        normkit check layers.py:BatchNorm2d --strict

    Why a check matters and how to fix what it finds:

        normkit check --explain wrong-axes
    """
    if list_codes:
        print_list()
        return
    if explain is not None:
        print_explanation(explain)
        return
    if not targets:
        raise UserError(
            "expected a TARGET such as layers.py:BatchNorm2d (or --list, or --explain CODE); none was given"
        )
    if jobs is not None and jobs < 1:
        raise UserError(f"`jobs` must be 1 or more, not {jobs}")
    if timeout <= 0:
        raise UserError(f"`timeout` must be more than 0 seconds, not {timeout:g}")
    from normkit.checking.candidates import candidates
    from normkit.checking.options import Options

    given = _values(init, "--init"), _values(call, "--call")
    codes = _codes(select, "--select"), _codes(ignore, "--ignore")
    options = Options(family, features, *given, convention, None, method, adapter, *codes, strict)
    found = candidates(targets)
    if not summary and len(found) == 1 and found[0].named:
        _check_one(found[0].target, options, output, timeout)
    else:
        _check_many(found, options, output, timeout, jobs, reports=not summary)


def _check_one(target: str, options: "Options", output: Format, timeout: float) -> None:
    from normkit.checking.process import check_target
    from normkit.checking.target.errors import CannotRunError

    try:
        report = check_target(target, options, timeout, fork=True)
    except CannotRunError as error:
        print_stopped(target, error, output)
        raise
    except Exception as error:
        print_bug(target, error, output)
        raise
    print_report(report, output)
    raise typer.Exit(report.exit_status)


def _check_many(
    found: "list[Candidate]", options: "Options", output: Format, timeout: float, jobs: int | None, *, reports: bool
) -> None:
    from normkit.checking.summary import check_many
    from normkit.cli.progress import targets_done
    from normkit.threads import processors

    total = sum(not candidate.problem for candidate in found)
    with targets_done(total) as tell:

        def done(entry: "Entry") -> None:
            tell(f"{entry.target}: {entry.status}")

        summary = check_many(found, options, timeout, jobs=jobs or processors(), fork=True, done=done)
    print_summary(summary, output, reports=reports)
    raise typer.Exit(_INTERRUPTED if summary.interrupted else summary.exit_status)


def _codes(given: list[str] | None, option: str) -> tuple[str, ...]:
    """Read codes, by commas or one an option."""
    from normkit.checking.rules import known_code

    found = [code.strip() for codes in given or [] for code in codes.split(",") if code.strip()]
    if given and not found:
        raise UserError(f"{option} expects codes of checks, but none was given: normkit check --list names them all")
    return tuple(map(known_code, found))


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
