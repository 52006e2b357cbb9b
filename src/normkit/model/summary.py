"""The result of accelerate and restore, as an object and as text."""

from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple


class Skipped(NamedTuple):
    """A layer that was not swapped, and why."""

    name: str
    cls: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """The layers that were swapped, or restored, and those that were not and why. Print it.

    Args:
        verb: "accelerate" or "restore".
        swapped: (name, class) of every layer that was swapped, or swapped back: torch's or the model's own class.
        left: The norms that were not.
        already: The number of layers that were normkit's before.
    """

    verb: str
    swapped: tuple[tuple[str, str], ...]
    left: tuple[Skipped, ...]
    already: int

    def __str__(self) -> str:
        layers = "layer" if len(self.swapped) == 1 else "layers"
        done = "restored" if self.verb == "restore" else "swapped"
        lines = [f"{self.verb}: {len(self.swapped)} {layers} {done}"]
        if self.already:
            lines[0] += f", {self.already} normkit's already"
        names: dict[str, list[str]] = defaultdict(list)
        for name, cls in self.swapped:
            names[cls].append(name or "(the model itself)")
        lines += [f"  {len(found)} × {cls}: {shorten(found)}" for cls, found in names.items()]
        reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, cls, reason in self.left:
            reasons[cls, reason].append(name or "(the model itself)")
        lines += [f"  left {len(found)} × {cls}: {shorten(found)}: {why}" for (cls, why), found in reasons.items()]
        return "\n".join(lines)


def shorten(names: list[str]) -> str:
    """Return names with commas, the middle ones left out where there are many."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} … {names[-1]}"
