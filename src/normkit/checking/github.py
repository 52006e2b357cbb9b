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
    position = f"file={_property(_relative(source))},line={line or 1}," if source is not None else ""
    return "\n".join(
        f"::{_LEVELS[f.severity]} {position}title={_property(f'normkit check: {f.code}')}::"
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
