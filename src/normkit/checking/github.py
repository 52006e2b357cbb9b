"""Findings as annotations for GitHub: workflow commands, which GitHub shows beside the code."""

from collections.abc import Sequence
from pathlib import Path

from normkit.checking.report import Finding

_LEVELS = {"error": "error", "warning": "warning", "note": "notice"}


def annotations(findings: Sequence[Finding], source: str | None = None, line: int | None = None) -> str:
    """Write one workflow command a finding.

    Args:
        findings: What was found.
        source: The file that the target is defined in.
        line: Its line in that file.
    """
    return "\n".join(
        _command(
            _LEVELS[finding.severity],
            finding.code,
            f"{finding.message}\nmeasured: {finding.evidence}\nfix: {finding.fix}",
            source,
            line,
        )
        for finding in findings
    )


def annotation_of(verdict: str, reason: str, source: str | None, line: int | None = None) -> str:
    """Write the workflow command for a target that has no verdict.

    Args:
        verdict: What it has instead: not judged, not run.
        reason: Why.
        source: The file that the target is defined in.
        line: Its line in that file.
    """
    return _command("error", verdict, reason, source, line)


def _command(level: str, title: str, text: str, source: str | None, line: int | None) -> str:
    position = f"file={_property(_relative(source))},line={line or 1}," if source is not None else ""
    return f"::{level} {position}title={_property(f'normkit check: {title}')}::{_data(text)}"


def _relative(path: str) -> str:
    try:
        return str(Path(path).resolve().relative_to(Path.cwd()))
    except ValueError:
        return path


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
