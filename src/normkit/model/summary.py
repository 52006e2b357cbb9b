"""The result of tools that change layers in place, as an object and as text."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from normkit.bench.measure import Timing
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
class Gain(Renderable):
    """What normkit's norms gain on one input: above 1 they are faster. Print it.

    Args:
        training: Whether a forward and a backward pass were timed (the model trains), or a forward pass without
            gradients.
        kernels: The norms that ran in a kernel.
        handed_over: Those that were handed to torch's own operations.
        unused: Those that this input does not reach.
        before: Seconds with the classes that the layers have without normkit: the median and its quartiles.
        after: Seconds with normkit's.
    """

    training: bool
    kernels: tuple[str, ...]
    handed_over: tuple[str, ...]
    unused: tuple[str, ...]
    before: Timing
    after: Timing

    @property
    def ratio(self) -> float:
        """How many times as fast a pass is."""
        return self.before.median / self.after.median

    @property
    def is_clear(self) -> bool:
        """Whether the quartiles of the two do not overlap."""
        return self.after.high < self.before.low or self.before.high < self.after.low

    def __str__(self) -> str:
        number = len(self.kernels) + len(self.handed_over)
        lines = [f"on this input, in {'training' if self.training else 'evaluation'}:"]
        lines[0] += f" {len(self.kernels)} of {number} norms run in kernels"
        if self.handed_over:
            lines[0] += f", {len(self.handed_over)} are handed to torch's own operations"
        if self.unused:
            lines.append(f"not reached by this input: {shorten(list(self.unused))}")
        passes = "forward and backward pass" if self.training else "forward pass"
        lines.append(
            f"{passes}: {_shown(self.before.median)} before, {_shown(self.after.median)} now: {self._verdict()}"
        )
        return "\n".join(lines)

    def _verdict(self) -> str:
        if not self.is_clear:
            return "no clear difference"
        undo = "" if self.ratio > 1 else "; normkit.restore(model) undoes it"
        return f"{self.ratio:.2f} times as fast{undo}"

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {
            "training": self.training,
            "kernels": list(self.kernels),
            "handed_over": list(self.handed_over),
            "unused": list(self.unused),
            "before_seconds": self.before.median,
            "after_seconds": self.after.median,
            "is_clear": self.is_clear,
        }


@dataclass(frozen=True)
class Summary(Renderable):
    """The layers that a tool changed in place, and those that it did not and why. Print it.

    Args:
        verb: "accelerate", "restore", "freeze" or "unfreeze".
        swapped: (name, class) of every layer that was changed, or changed back: torch's or the model's own class.
        left: The norms that were not.
        already: The number of layers that needed no change: they were normkit's before, or frozen.
        gain: What the change gains on the example that accelerate was given.
    """

    verb: str
    swapped: tuple[tuple[str, str], ...]
    left: tuple[Skipped, ...]
    already: int
    gain: Gain | None = None

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
        if self.gain is not None:
            lines += [f"  {line}" for line in str(self.gain).splitlines()]
        elif self.verb == "accelerate" and self.swapped:
            lines.append("  faster where inputs are large: accelerate(model, example=x) measures it")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        gain = {} if self.gain is None else {"gain": self.gain.to_dict()}
        return {
            "verb": self.verb,
            "layers": [{"name": name, "class": cls} for name, cls in self.swapped],
            "left": [{"name": name, "class": cls, "reason": reason} for name, cls, reason in self.left],
            "already": self.already,
            **gain,
        }


def shorten(names: list[str]) -> str:
    """Return names with commas, the middle ones left out where there are many."""
    return ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} … {names[-1]}"


def _shown(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
