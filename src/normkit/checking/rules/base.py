"""A check: a small class with a code, a docstring that is its documentation, and prerequisites."""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from normkit.checking.report import Finding, Severity

if TYPE_CHECKING:
    from normkit.checking.lab import Lab


class Rule(ABC):
    """A check of one kind of deviation.

    The docstring of a subclass is what ``normkit check --explain`` prints. Its first paragraph says what is wrong, the
    one that starts with ``Why:`` why it matters, the one that starts with ``Fix:`` how to fix it.
    """

    code: ClassVar[str]
    severity: ClassVar[Severity] = "error"
    requires: ClassVar[tuple[str, ...]] = ()
    """Codes that must have found nothing (notes aside); otherwise this check is skipped."""
    families: ClassVar[tuple[str, ...]] = ("batch", "layer", "group", "instance", "rms")
    """The families that it applies to."""

    def not_applicable(self, lab: "Lab") -> str | None:
        """Why it does not apply to this target; None where it does."""
        return None

    @abstractmethod
    def check(self, lab: "Lab") -> Iterator[Finding]:
        """Make the experiment and yield what deviates."""

    @classmethod
    def section(cls, name: str) -> str:
        """One part of the documentation, on one line: "what", "why" or "fix"; code is in single backticks there."""
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
        """A finding with this check's severity and documentation, unless others are given."""
        return Finding(
            self.code, severity or self.severity, message, evidence, self.section("why"), fix or self.section("fix")
        )


def number(value: float) -> str:
    """A number for people: three significant digits, no exponent where it can be avoided."""
    value += 0.0  # no negative zero
    if not np.isfinite(value):
        return "NaN or infinity"
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:.4g}"
    return f"{value:.3g}"
