"""Reports for people and for machines: text, GitHub annotations, the documentation of each check.

A report is first cut into sections of (label, text) lines. The plain text here and the coloured one of the command
line show the same sections.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from normkit.checking.families import CONVENTIONS, TITLES
from normkit.checking.report import SEVERITIES, Finding, Identity, Isolation, Report, Severity
from normkit.checking.rules import RULES

Lines = list[tuple[str, str]]
_LABEL = 16

WIDTH = 100
"""Of plain text, in characters."""


@dataclass(frozen=True)
class Section:
    """A heading with lines below it; findings carry their severity."""

    heading: str
    lines: Lines
    severity: Severity | None = None


def sections(report: Report) -> list[Section]:
    """What there is to say, in order: what it computes, then each finding."""
    return [Section("What it computes, as measured", describe(report)), *map(of_finding, report.findings)]


def describe(report: Report) -> Lines:
    """The identity, one line a fact; facts that do not apply are left out."""
    identity = report.identity
    kind = {"module class": "a module", "module": "a module", "class": "a class", "object": "an object"}
    lines: Lines = [
        ("family", f"{TITLES[report.family]}, {report.family_reason}"),
        ("built as", f"{identity.built}, {kind.get(identity.kind, 'a function')} on {_library(identity.library)}"),
        ("takes", f"inputs of rank {', '.join(map(str, identity.ranks))}; measured on {identity.layout}"),
        ("averages over", identity.reduces or "could not be told"),
        ("formula", _formula(identity)),
        ("running mean", _update(identity.update_mean, "mean", identity.initial.get("running_mean"))),
        ("running variance", _running_variance(identity)),
        ("evaluation", identity.evaluation or ""),
        ("output", _output(identity)),
        ("parameters", "; ".join(f"{name} {words}" for name, words in identity.parameters.items()) or "none"),
        ("saved", ", ".join(identity.saved) or "nothing" if identity.saved is not None else ""),
        ("run in", _ISOLATION[report.isolation]),
    ]
    return [(label, text) for label, text in lines if text]


_ISOLATION: dict[Isolation, str] = {
    "process": "",
    "fork": "a fork of the calling process; what importing it prints or changes was not seen",
    "none": "the calling process, on copies, with no time limit; what importing it prints or changes was not seen",
}


def _library(name: str) -> str:
    return {"torch": "torch tensors", "numpy": "NumPy arrays", "jax": "JAX arrays"}[name]


def _formula(identity: Identity) -> str:
    if identity.centred is None:
        return "none of (x - mean) / sqrt(var + eps)"
    eps = f"{identity.eps:g}" if identity.eps is not None else ""
    denominator = {
        "inside": f"sqrt(var + {eps})",
        "outside": f"(sqrt(var) + {eps})",
        "clamp": f"sqrt(max(var, {eps}))",
        "missing": "sqrt(var)",
    }[identity.eps_place or "missing"]
    if not identity.centred:
        return f"x / {denominator.replace('var', 'mean square')}"
    return f"(x - mean) / {denominator}, {identity.variance} variance"


def _update(pair: tuple[float, float] | None, batch: str, initial: str | None) -> str:
    if pair is None:
        return ""
    start = f", starts at {initial}" if initial is not None else ""
    if pair[1] == 0.0:
        return f"never moves{start}"
    return f"new = {pair[0]:g}·old + {pair[1]:g}·{batch}{start}"


def _running_variance(identity: Identity) -> str:
    text = _update(identity.update_var, f"{identity.running_variance} variance", identity.initial.get("running_var"))
    return text or ("follows no such average" if identity.update_mean else "")


def _output(identity: Identity) -> str:
    same = [dtype for dtype, out in identity.output_dtype.items() if out == dtype]
    other = [f"{dtype} in: {out}" for dtype, out in identity.output_dtype.items() if out != dtype]
    kept = f"dtype as the input ({', '.join(same)})" if same else ""
    return "; ".join(part for part in (f"shape {identity.output_shape}", kept, *other) if part)


def of_finding(finding: Finding) -> Section:
    """What there is to say about a finding."""
    lines = [("measured", finding.evidence), ("why it matters", finding.why), ("how to fix", finding.fix)]
    return Section(f"{finding.severity}  {finding.code}: {finding.message}", lines, finding.severity)


def verdict(report: Report) -> str:
    """The last line: equivalent or not, and how much was found."""
    counts = [_plural(report.count(severity), severity) for severity in SEVERITIES if report.count(severity)]
    found = ", ".join(counts) if counts else "no findings"
    relation = "Equivalent to" if report.ok else "Not equivalent to"
    under = "" if report.convention == "torch" else f" under {CONVENTIONS[report.convention].title}'s convention"
    return f"{relation} {report.twin}{under}: {found}. {_ran(report)}"


def _ran(report: Report) -> str:
    ran = len(report.passed) + len(set(report.codes))
    blocked = sum(reason.startswith(("needs", "could not")) for reason in report.skipped.values())
    tail = f", {blocked} skipped until others pass" if blocked else ""
    return f"{ran} checks ran{tail}."


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def as_text(report: Report, width: int = WIDTH) -> str:
    """The report as plain text."""
    blocks = [
        report.target,
        *(text_of(section, width) for section in sections(report)),
        wrapped(verdict(report), width),
    ]
    return "\n\n".join(blocks)


def text_of(section: Section, width: int = WIDTH) -> str:
    """A section as plain text."""
    lines = [wrapped(section.heading, width, rest="  ")]
    for label, text in section.lines:
        prefix = f"  {label:<{_LABEL}}  "
        lines.append(wrapped(text, width, first=prefix, rest=" " * len(prefix)))
    return "\n".join(lines)


def wrapped(text: str, width: int = WIDTH, first: str = "", rest: str = "") -> str:
    """Text broken into lines, the first and the others indented."""
    return textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)


def as_github(findings: Sequence[Finding], source: str | None = None, line: int | None = None) -> str:
    """One workflow command a finding; GitHub shows them beside the code.

    Args:
        findings: What was found.
        source: The file that the target is defined in.
        line: Where in it.
    """
    level = {"error": "error", "warning": "warning", "note": "notice"}
    place = f"file={_property(_relative(source))},line={line or 1}," if source is not None else ""
    return "\n".join(
        f"::{level[f.severity]} {place}title={_property(f'normkit check: {f.code}')}::"
        + _data(f"{f.message}\nmeasured: {f.evidence}\nfix: {f.fix}")
        for f in findings
    )


def _relative(path: str) -> str:
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def documentation(code: str) -> Section:
    """What a check looks for, why, and how to fix what it finds."""
    rule = RULES[code]
    lines = [
        ("what", rule.section("what")),
        ("why it matters", rule.section("why")),
        ("how to fix", rule.section("fix")),
    ]
    lines += [("severity", rule.severity), ("applies to", _list(rule.families)), ("runs after", _list(rule.requires))]
    return Section(code, [(label, text) for label, text in lines if text])


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
