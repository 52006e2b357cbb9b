"""The result of a conversion, as an object and as text."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from normkit.model.summary import Skipped, shorten
from normkit.renderable import Renderable

__all__ = ["NO_BATCH_NORM", "Conversion", "Converted", "Drift", "Match"]

NO_BATCH_NORM: Final = "it is no batch norm"
"""Why a norm was left that nobody meant."""


class Converted(NamedTuple):
    """A layer that became another one.

    Args:
        name: Its name in the model; a layer that is used in several places has the first one.
        before: Its class before.
        after: Its class now.
        groups: The number of groups of a group norm.
    """

    name: str
    before: str
    after: str
    groups: int | None


class Drift(NamedTuple):
    """How far the results of the model in evaluation moved on the example.

    Args:
        largest: The largest difference.
        relative: The root of the summed squares of the differences, relative to that of the results before.
    """

    largest: float
    relative: float


class Match(NamedTuple):
    """How near the moments of a converted layer are to those of the batch norm, before and after it was rescaled.

    Args:
        name: The layer.
        before: The largest distance of a channel's mean, in standard deviations, and of its standard deviation,
            relative to it; the layers before it are rescaled already.
        after: The same afterwards, with all layers rescaled.
        left: Why it was not rescaled; None if it was.
    """

    name: str
    before: tuple[float, float]
    after: tuple[float, float]
    left: str | None


@dataclass(frozen=True)
class Conversion(Renderable):
    """What became of the norms of a model. Print it.

    Args:
        to: The target: "group", "layer", "instance", "frozen", "sync" or "batch".
        converted: The layers that were converted.
        left: The norms that were not, and why.
        already: How many were that before.
        ignored: Keys of a checkpoint from before that the model has no place for: loading one ignores them, also with
            ``strict=True``.
        drift: How far the results on the example moved; None without one.
        unmatched: The same before weights and biases were rescaled; None without data.
        matched: The layers whose weights and biases were rescaled, with the proof, in the order of execution.
    """

    to: str
    converted: tuple[Converted, ...]
    left: tuple[Skipped, ...]
    already: int
    ignored: tuple[str, ...] = ()
    drift: Drift | None = None
    unmatched: Drift | None = None
    matched: tuple[Match, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether no batch norm was left."""
        return all(one.reason == NO_BATCH_NORM for one in self.left)

    def __str__(self) -> str:
        layers = "layer" if len(self.converted) == 1 else "layers"
        lines = [f"convert: {len(self.converted)} {layers} to {self.to}"]
        if self.already:
            lines[0] += f", {self.already} {self.to} already"
        lines += [*_grouped(self.converted), *_left(self.left), *self._checkpoints()]
        if self.drift is not None:
            lines.append(f"  result on the example moved by {_moved(self.drift)}")
        if self.unmatched is not None:
            lines.append(f"    before rescaling by {_moved(self.unmatched)}")
        return "\n".join([*lines, *self._moments()])

    def _checkpoints(self) -> list[str]:
        if not self.converted:
            return []
        if not self.ignored:
            return ["  checkpoints from before fit, and those from now fit the old model"]
        return [f"  checkpoints from before load; {len(self.ignored)} keys of them, running statistics, are ignored"]

    def _moments(self) -> list[str]:
        rescaled = [match for match in self.matched if match.left is None]
        lines = []
        for title, values in (("before", [m.before for m in rescaled]), ("after", [m.after for m in rescaled])):
            if values:
                mean, std = (max(column) for column in zip(*values, strict=True))
                lines.append(f"    {title}: means within {mean:.1e} standard deviations, these within {std:.1e}")
        if lines:
            lines.insert(0, f"  weight and bias of {len(rescaled)} rescaled to the moments of the batch norms")
        reasons: dict[str, list[str]] = defaultdict(list)
        for match in self.matched:
            if match.left is not None:
                reasons[match.left].append(match.name or "(the model itself)")
        return lines + [f"  not rescaled: {shorten(names)}: {reason}" for reason, names in reasons.items()]

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types."""
        return {
            "to": self.to,
            "converted": [one._asdict() for one in self.converted],
            "left": [{"name": name, "class": cls, "reason": reason} for name, cls, reason in self.left],
            "already": self.already,
            "ignored": list(self.ignored),
            "drift": None if self.drift is None else self.drift._asdict(),
            "unmatched": None if self.unmatched is None else self.unmatched._asdict(),
            "matched": [one._asdict() for one in self.matched],
        }


def _moved(drift: Drift) -> str:
    relative = f"{drift.relative:.0%}" if drift.relative >= 0.01 else f"{drift.relative:.1e}"
    return f"{relative} of its size, at most by {drift.largest:.2g}"


def _grouped(converted: tuple[Converted, ...]) -> list[str]:
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    groups: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one in converted:
        names[one.before, one.after].append(one.name or "(the model itself)")
        groups[one.before, one.after] |= {one.groups} - {None}  # type: ignore[arg-type]
    lines = []
    for (before, after), found in names.items():
        numbers = ", ".join(map(str, sorted(groups[before, after])))
        in_groups = f" ({numbers} groups)" if numbers else ""
        lines.append(f"  {len(found)} × {before} -> {after}{in_groups}: {shorten(found)}")
    return lines


def _left(left: tuple[Skipped, ...]) -> list[str]:
    names: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, cls, reason in left:
        names[cls, reason].append(name or "(the model itself)")
    return [f"  left {len(found)} × {cls}: {shorten(found)}: {reason}" for (cls, reason), found in names.items()]
