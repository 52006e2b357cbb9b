"""A check: a small class with a code, a docstring that is its documentation, and prerequisites."""

import inspect
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from typing import ClassVar, TypeVar

from normkit.checking.families import FAMILIES
from normkit.checking.measure.lab import Measurements
from normkit.checking.report import MODES, Finding, Mode, Section, Severity
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.errors import TargetError

T = TypeVar("T")

ANY_FAMILY = (*FAMILIES, "other")
"""For checks that ask nothing of what a layer computes."""

BASIC = ("output-shape in training", "not-deterministic in training")
"""The requirements of whatever compares outputs in training with a definition."""


class UnmeasuredError(Exception):
    """Something that a check needs could not be told; the message says what."""


class BlockedError(Exception):
    """The rest of a check needs another check to pass.

    Args:
        requirement: The code of the other check, "in training" or "in evaluation" where that alone matters.
        modes: The modes that could not be looked at.
    """

    def __init__(self, requirement: str, modes: Collection[Mode]) -> None:
        super().__init__(requirement)
        self.requirement = requirement
        self.modes = modes


class Rule(ABC):
    """A check of one kind of deviation.

    The docstring of a subclass is what ``normkit check --explain`` prints. Its first paragraph says what is wrong, the
    one that starts with ``Why:`` why it matters, the one that starts with ``Fix:`` how to fix it.

    Args:
        unmet: The requirements that are not met: codes that found something or could not be measured, each with the
            mode, as in "output-shape in training".
    """

    code: ClassVar[str]
    severity: ClassVar[Severity] = "error"
    requires: ClassVar[tuple[str, ...]] = ()
    """Codes that must have found nothing (notes aside), in one mode or in both; otherwise this check is skipped."""
    after: ClassVar[tuple[str, ...]] = ()
    """Codes that a part of the check needs, which asks for them itself; they only run before it."""
    families: ClassVar[tuple[str, ...]] = FAMILIES
    """The families that it applies to."""
    core: ClassVar[bool] = False
    """Whether a target is judged equivalent only where this check passed or does not apply."""
    edge: ClassVar[bool] = False
    """Whether it looks at rare inputs and dtypes, which nearly every hand-written layer gets wrong."""

    def __init__(self, unmet: Collection[str] = ()) -> None:
        self.unmet = unmet
        self.unmeasured: dict[Mode, str] = {}

    def not_applicable(self, probe: Measurements) -> str | None:
        """Say why it does not apply to this target; None where it does."""
        return None

    @abstractmethod
    def check(self, probe: Measurements) -> Iterator[Finding]:
        """Make the experiment and yield what deviates."""

    def need(self, *requirements: str, modes: Collection[Mode] = MODES) -> None:
        """Stop the check here unless others passed.

        Args:
            requirements: Their codes.
            modes: The modes that the rest of the check looks at.
        Raises:
            BlockedError: one did not.
        """
        for requirement in requirements:
            if not self.met(requirement):
                raise BlockedError(requirement, modes)

    def met(self, *requirements: str) -> bool:
        """Whether other checks passed: each a code in one mode ("output-shape in training"), or alone, for both."""
        wanted = tuple(f"{requirement} in " for requirement in requirements)
        return not any(unmet in requirements or unmet.startswith(wanted) for unmet in self.unmet)

    def each_mode(self, measure: Callable[[bool], T], modes: Collection[Mode] = MODES) -> Iterator[tuple[Mode, T]]:
        """Measure training, then evaluation, each by itself: a failure in one leaves the other to be looked at.

        Args:
            measure: Takes whether to train.
            modes: The modes to look at.
        """
        for mode in modes:
            try:
                measured = measure(mode == "training")
            except TargetError as error:
                self.unmeasured[mode] = str(error)
            else:
                yield mode, measured

    @classmethod
    def documentation(cls) -> Section:
        """Return what the check looks for, why, and how to fix what it finds."""
        lines = [
            ("what", cls.section("what")),
            ("why it matters", cls.section("why")),
            ("how to fix", cls.section("fix")),
            ("severity", cls.severity),
            ("applies to", ", ".join(cls.families)),
            ("verdict", "equivalent needs this check to pass, or not to apply" if cls.core else ""),
            ("shown", "below the other findings, as an edge case" if cls.edge else ""),
            ("needs to pass", ", ".join(cls.requires)),
            ("needs in part", ", ".join(cls.after)),
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
        self,
        message: str,
        evidence: str,
        *,
        severity: Severity | None = None,
        fix: str | None = None,
        mode: Mode | None = None,
    ) -> Finding:
        """Make a finding with this check's severity and documentation, unless others are given.

        Args:
            message: What is wrong.
            evidence: The numbers that show it.
            severity: Another severity than the check's.
            fix: Another way to fix it than the check's.
            mode: Where it was found, if checks of the other mode need not care.
        """
        return Finding(
            self.code,
            severity or self.severity,
            message,
            evidence,
            self.section("why"),
            fix or self.section("fix"),
            mode,
            self.edge,
        )


def shared(modes: Collection[Mode]) -> Mode | None:
    """Return the mode of a finding that was made in these modes: None for both."""
    return next(iter(modes)) if len(modes) == 1 else None


def ready(probe: Measurements, rank: int | None = None, *, training: bool) -> Adapter:
    """Build a layer for a call: a fresh one for training, for evaluation one that has seen a batch."""
    return probe.train(rank, steps=0 if training else 1)


def usual_first(probe: Measurements) -> list[int]:
    """Return the input ranks to check, the one that most experiments use first."""
    return sorted(probe.ranks, key=lambda rank: rank != probe.rank)
