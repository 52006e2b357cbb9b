"""Check many targets side by side, and say of each in one line what came of it."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from normkit.checking.candidates import Candidate
from normkit.checking.options import Options
from normkit.checking.process import TIMEOUT, Outcome, check_targets
from normkit.checking.report import Finding, Report, Verdict
from normkit.errors import BugError

Status = Literal[Verdict, "not run", "no layer", "bug", "interrupted"]
STATUSES: tuple[Status, ...] = get_args(Status)

COLUMNS = ("target", "verdict", "family", "err", "warn", "first errors, or the reason")

_EXIT: dict[Status, int] = {
    "equivalent": 0,
    "not equivalent": 1,
    "not judged": 2,
    "not run": 2,
    "no layer": 2,
    "bug": 3,
    "interrupted": 0,
}
_CODES = 3
"""Codes of errors that a line names."""
_REASON = 70
"""Characters of a reason that a line shows."""


@dataclass(frozen=True)
class Entry:
    """What came of one target.

    Args:
        target: What was checked, or a file without a layer.
        status: The verdict, or why there is none.
        report: The report, where there is one.
        error: What stopped it, where there is none.
        findings: What was found before it stopped.
        named: Whether the user named it, or its file, rather than a folder.
    """

    target: str
    status: Status
    report: Report | None = None
    error: str = ""
    findings: tuple[Finding, ...] = ()
    named: bool = True

    @property
    def exit_status(self) -> int:
        """0, 1, 2 or 3, as for a target alone; a file without a layer in a folder is nobody's fault."""
        if self.report is not None:
            return self.report.exit_status
        return 0 if self.status == "no layer" and not self.named else _EXIT[self.status]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data: the report, or what stopped it."""
        if self.report is not None:
            return self.report.to_dict()
        plain = {
            "target": self.target,
            "verdict": self.status,
            "error": self.error,
            "findings": [asdict(finding) for finding in self.findings],
            "ok": False,
        }
        return {**plain, "bug": True} if self.status == "bug" else plain

    def row(self) -> tuple[str, ...]:
        """Return the texts of its line, one a column."""
        if self.report is None:
            return (self.target, self.status, "-", "-", "-", self._reason())
        errors, warnings = self.report.count("error"), self.report.count("warning")
        return (self.target, self.status, self.report.family, str(errors), str(warnings), self._reason())

    def _reason(self) -> str:
        if self.report is None:
            return _short(self.error.removeprefix(f"{self.target} "))
        if self.report.not_judged:
            return _short(self.report.not_judged[0])
        errors = [finding for finding in self.report.findings if finding.severity == "error"]
        codes = list(dict.fromkeys(f"edge: {f.code}" if f.edge else f.code for f in errors))
        more = f" +{len(codes) - _CODES}" if len(codes) > _CODES else ""
        return ", ".join(codes[:_CODES]) + more


@dataclass(frozen=True)
class Summary:
    """What came of many targets, in the order in which they were given."""

    entries: tuple[Entry, ...]

    @property
    def interrupted(self) -> bool:
        """Whether some were not waited for."""
        return any(entry.status == "interrupted" for entry in self.entries)

    @property
    def counts(self) -> dict[str, int]:
        """How many targets there are of each status."""
        found = Counter(entry.status for entry in self.entries)
        return {status: found[status] for status in STATUSES if found[status]}

    @property
    def exit_status(self) -> int:
        """The highest status of all; 2 where there was nothing to check."""
        checked = [entry.exit_status for entry in self.entries if entry.status != "no layer" or entry.named]
        return max(checked, default=2)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for ``json.dumps``."""
        return {
            "targets": [entry.to_dict() for entry in self.entries],
            "counts": self.counts,
            "interrupted": self.interrupted,
        }

    def conclusion(self) -> str:
        """Return the last line: how many of each."""
        counts = ", ".join(f"{count} {status}" for status, count in self.counts.items())
        return f"{len(self.entries)} target{'' if len(self.entries) == 1 else 's'}: {counts or 'nothing to check'}."

    def __str__(self) -> str:
        """Write a table for a pipe: a line a target, in columns."""
        lines = [f"{cells}{reason}".rstrip() for cells, reason in aligned([COLUMNS, *(e.row() for e in self.entries)])]
        return "\n".join([*lines, "", self.conclusion()])


def aligned(rows: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """Pad the cells of each row but the last to the width of their columns; return them as one text, and the last."""
    columns = list(zip(*rows, strict=True))[:-1]
    widths = [max(map(len, column)) for column in columns]
    return [("".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False)), row[-1]) for row in rows]


def check_many(
    found: Sequence[Candidate],
    options: Options,
    timeout: float = TIMEOUT,
    *,
    jobs: int,
    fork: bool = False,
    done: Callable[[Entry], None] = lambda entry: None,
) -> Summary:
    """Check every candidate; an interruption ends all and keeps what there is.

    Args:
        found: What to check, and the files that hold nothing.
        options: What the user fixed.
        timeout: Seconds that each may take.
        jobs: How many run at a time.
        fork: As for ``check_target``.
        done: Told each outcome as it comes.
    """
    targets = [candidate for candidate in found if not candidate.problem]
    entries = {candidate.target: _entry(candidate) for candidate in found}
    names = [candidate.target for candidate in targets]
    with (
        contextlib.suppress(KeyboardInterrupt),
        contextlib.closing(check_targets(names, options, timeout, jobs=jobs, fork=fork)) as outcomes,
    ):
        for position, outcome in outcomes:
            entry = _entry(targets[position], outcome)
            entries[entry.target] = entry
            done(entry)
    return Summary(_merged(entries.values()))


def _entry(candidate: Candidate, outcome: Outcome | None = None) -> Entry:
    target, named = candidate.target, candidate.named
    if candidate.problem:
        return Entry(target, "not run" if candidate.unreadable else "no layer", error=candidate.problem, named=named)
    if outcome is None:
        return Entry(target, "interrupted", error="it was not waited for", named=named)
    if isinstance(outcome, Report):
        return Entry(target, outcome.verdict, outcome, named=named)
    if isinstance(outcome, BugError):
        return Entry(target, "bug", error=str(outcome), named=named)
    return Entry(target, "not run", error=str(outcome), findings=outcome.findings, named=named)


def _merged(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Say once of a file that it cannot be imported, rather than of each layer in it."""
    merged = [_of_its_file(entry) for entry in entries]
    return tuple({entry.target: entry for entry in reversed(merged)}.values())[::-1]


def _of_its_file(entry: Entry) -> Entry:
    """Name the file alone where it cannot be imported."""
    file = entry.target.rpartition(":")[0]
    importing = f"importing {file} "
    if entry.status != "not run" or not entry.error.startswith(importing):
        return entry
    return replace(entry, target=file, error=f"importing it {entry.error.removeprefix(importing)}")


def _short(reason: str) -> str:
    """The first line of a reason, or the most telling outcome where that is only announced there."""
    lines = reason.splitlines() or [""]
    announces = lines[0].endswith("none ran:") and len(lines) > 1
    text = lines[1].strip(" -").partition(": ")[2] if announces else lines[0]
    return text if len(text) <= _REASON else f"{text[: _REASON - 1]}…"
