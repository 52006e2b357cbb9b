"""A check: a small class with a code, a docstring that is its documentation, and prerequisites."""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

from normkit.checking.families import TITLES
from normkit.checking.measure.lab import Measurements
from normkit.checking.report import Finding, Section, Severity


class Rule(ABC):
    """A check of one kind of deviation.

    The docstring of a subclass is what ``normkit check --explain`` prints. Its first paragraph says what is wrong, the
    one that starts with ``Why:`` why it matters, the one that starts with ``Fix:`` how to fix it.
    """

    code: ClassVar[str]
    severity: ClassVar[Severity] = "error"
    requires: ClassVar[tuple[str, ...]] = ()
    """Codes that must have found nothing (notes aside); otherwise this check is skipped."""
    families: ClassVar[tuple[str, ...]] = tuple(TITLES)
    """The families that it applies to."""

    def not_applicable(self, probe: Measurements) -> str | None:
        """Say why it does not apply to this target; None where it does."""
        return None

    @abstractmethod
    def check(self, probe: Measurements) -> Iterator[Finding]:
        """Make the experiment and yield what deviates."""

    @classmethod
    def documentation(cls) -> Section:
        """Return what the check looks for, why, and how to fix what it finds."""
        lines = [
            ("what", cls.section("what")),
            ("why it matters", cls.section("why")),
            ("how to fix", cls.section("fix")),
            ("severity", cls.severity),
            ("applies to", ", ".join(cls.families)),
            ("runs after", ", ".join(cls.requires)),
        ]
        return Section(cls.code, [(label, text) for label, text in lines if text])

    @classmethod
    def section(cls, name: str) -> str:
        """Return a part of the documentation on one line: "what", "why" or "fix"; code is in single backticks there."""
        paragraphs = inspect.cleandoc(cls.__doc__ or "").split("\n\n")
        if name == "what":
            found = paragraphs[0]
        else:
            label = f"{name.capitalize()}:"
            found = next((p.removeprefix(label) for p in paragraphs if p.startswith(label)), "")
        return re.sub(r"\s+", " ", found).strip().replace("``", "`")

    def finding(
        self, message: str, evidence: str, *, severity: Severity | None = None, fix: str | None = None
    ) -> Finding:
        """Make a finding with this check's severity and documentation, unless others are given."""
        return Finding(
            self.code, severity or self.severity, message, evidence, self.section("why"), fix or self.section("fix")
        )
