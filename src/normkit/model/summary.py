"""The result of tools that change layers in place, as an object and as text."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from normkit.renderable import Renderable

# for each verb what was done, and what some layers were before
_WORDS: Final = {
    "accelerate": ("swapped", "normkit's"),
    "restore": ("restored", "torch's"),
    "freeze": ("frozen", "frozen"),
    "unfreeze": ("thawed", "thawed"),
}


class Skipped(NamedTuple):
    """A layer that was left as it was, and why."""

    name: str
    cls: str
    reason: str


@dataclass(frozen=True)
class Summary(Renderable):
    """The layers that a tool changed in place, and those that it did not and why. Print it.

    Args:
        verb: "accelerate", "restore", "freeze" or "unfreeze".
        swapped: (name, class) of every layer that was changed, or changed back: torch's or the model's own class.
        left: The norms that were not.
        already: The number of layers that needed no change: they were normkit's before, or frozen.
    """

    verb: str
    swapped: tuple[tuple[str, str], ...]
    left: tuple[Skipped, ...]
    already: int

    def __str__(self) -> str:
        layers = "layer" if len(self.swapped) == 1 else "layers"
        done, already = _WORDS[self.verb]
        lines = [f"{self.verb}: {len(self.swapped)} {layers} {done}"]
        if self.already:
            lines[0] += f", {self.already} {already} already"
        names: dict[str, list[str]] = defaultdict(list)
        for name, cls in self.swapped:
            names[cls].append(name or "(the model itself)")
        lines += [f"  {len(found)} × {cls}: {shorten(found)}" for cls, found in names.items()]
        reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
        for name, cls, reason in self.left:
            reasons[cls, reason].append(name or "(the model itself)")
        lines += [f"  left {len(found)} × {cls}: {shorten(found)}: {why}" for (cls, why), found in reasons.items()]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {
            "verb": self.verb,
            "layers": [{"name": name, "class": cls} for name, cls in self.swapped],
            "left": [{"name": name, "class": cls, "reason": reason} for name, cls, reason in self.left],
            "already": self.already,
        }


def shorten(names: list[str]) -> str:
    """Return names with commas, the middle ones left out where there are many."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} … {names[-1]}"
