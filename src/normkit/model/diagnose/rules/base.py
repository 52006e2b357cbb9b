"""A rule: a small class for one cause, with a code, what it says, and the call that mends it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Final

from normkit.model.diagnose.forms import Choice
from normkit.model.diagnose.gap import closed
from normkit.model.diagnose.measure import Statistics
from normkit.model.diagnose.report import Finding, Layer

NOTICEABLE: Final = 0.1
"""A gap below this many standard deviations of the outputs is none."""
LEAST_SHARE: Final = 0.2
"""A cause that explains less of the gap is none."""


@dataclass(frozen=True)
class Case:
    """What the rules look at.

    Args:
        layers: The layers that run, in this order, without their parts in the gap.
        right: Their statistics by all batches.
        gap: Between evaluation and training form.
        gap_by: Returns the gap that is left with other statistics of layers, and another eps.
    """

    layers: Sequence[Layer]
    right: Mapping[str, Statistics]
    gap: float
    gap_by: Callable[[Mapping[str, Choice], Mapping[str, float]], float]

    _left: dict[frozenset[str], float] = field(default_factory=dict, init=False, repr=False)

    def left_by(self, names: Iterable[str]) -> float:
        """Return the gap that is left if layers evaluate by the statistics of all batches."""
        key = frozenset(names)
        if key not in self._left:
            self._left[key] = self.gap_by({name: (self.right[name].merged,) for name in key}, {})
        return self._left[key]

    def closed_by(self, names: Iterable[str]) -> float:
        """Return the share of the gap that is closed if layers evaluate by the statistics of all batches."""
        return closed(self.gap, self.left_by(names))

    @property
    def is_noticeable(self) -> bool:
        """Whether there is a gap to speak of."""
        return self.gap >= NOTICEABLE

    def worth_telling(self, share: float) -> float | None:
        """Return the share that a cause explains; None where there is no gap, or next to none of it is explained."""
        return share if self.is_noticeable and share >= LEAST_SHARE else None


class Rule(ABC):
    """A cause. ``what`` and ``advice`` are for people; ``call`` mends it, or is None."""

    code: ClassVar[str]
    what: ClassVar[str]
    advice: ClassVar[str]
    call: ClassVar[str | None] = None

    @abstractmethod
    def find(self, case: Case) -> Finding | None:
        """Return what was found, or None."""

    def finding(
        self, layers: Collection[Layer], number: str, share: float | None = None, call: str | None = None
    ) -> Finding:
        """Make a finding.

        Args:
            layers: The layers that it concerns.
            number: The number that shows it.
            share: The share of the gap that it explains.
            call: Another call than the rule's.
        """
        names = tuple(layer.name for layer in layers)
        rounded = None if share is None else min(max(share, 0.0), 1.0)
        return Finding(self.code, self.what, number, names, rounded, call or self.call, self.advice)


def most(layers: Iterable[Layer], of: Callable[[Layer], float]) -> Layer:
    """Return the layer in which a number is largest."""
    return max(layers, key=of)


def named(layer: Layer) -> str:
    """Name a layer in a sentence."""
    return layer.name or "the model"
