"""The result of recalibrate, as an object and as text."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from normkit.model.summary import Skipped
from normkit.renderable import Renderable


@dataclass(frozen=True)
class Recalibrated:
    """A layer that has new running statistics.

    Args:
        name: Its name in the model.
        cls: Its class.
        values: Behind each statistic: elements of a channel; of an instance norm samples.
        inputs: That were merged: one a batch and use.
        uses: The most in one forward pass.
        mean_moved: The largest change of a running mean, in standard deviations of the data. NaN: it was not finite.
        var_ratio: The smallest and the largest ratio of new to old running variance, eps added to both.
        skipped: Inputs left out because of NaN or infinity.
        cut: Batches that ended at this layer, as they had one value per channel, which it cannot normalize.
        settled: False: the layer is used several times, its inputs depend on its own statistics, and these went on
            changing; the last ones are kept.
    """

    name: str
    cls: str
    values: int
    inputs: int
    uses: int
    mean_moved: float
    var_ratio: tuple[float, float]
    skipped: int
    cut: int
    settled: bool

    def remarks(self) -> list[str]:
        """Return what is not as usual, in words."""
        found = [f"used {self.uses} times in a forward pass: all of its inputs are merged"] if self.uses > 1 else []
        if self.skipped:
            found.append(f"{self.skipped} of its inputs held NaN or infinity and are left out")
        if self.cut:
            found.append(
                f"{_count(self.cut, 'batch')} ended here: one value per channel cannot be normalized in training "
                "(`mode=sequential` needs no training mode)"
            )
        if not self.settled:
            found.append("its inputs depend on its own statistics, which had not settled after the last pass")
        return found


@dataclass(frozen=True)
class Recalibration(Renderable):
    """What :func:`normkit.recalibrate` has changed. Print it.

    Args:
        mode: "pooled" or "sequential".
        batches: In the data, of all ranks.
        passes: Over the data.
        layers: Those with new statistics.
        left: Those that were left as they were, and why.
        before: The old statistics as a state dict: ``model.load_state_dict(result.before, strict=False)`` puts them
            back.
    """

    mode: str
    batches: int
    passes: int
    layers: tuple[Recalibrated, ...]
    left: tuple[Skipped, ...]
    before: dict[str, Tensor]

    @property
    def is_complete(self) -> bool:
        """Whether every layer has the statistics of all data."""
        return not self.left and not any(layer.skipped or layer.cut or not layer.settled for layer in self.layers)

    def __str__(self) -> str:
        counts = [_count(len(self.layers), "layer"), _count(self.batches, "batch")]
        counts += [f"{self.passes} passes"] if self.passes > 1 else []
        lines = [f"recalibrate ({self.mode}): {', '.join(counts)}"]
        rows = [("layer", "values", "mean moved by", "variance times")]
        for layer in self.layers:
            smallest, largest = layer.var_ratio
            moved = "was not finite" if math.isnan(layer.mean_moved) else f"{layer.mean_moved:.3g} sd"
            ratio = "was not finite" if math.isnan(smallest) else f"{smallest:.3g} to {largest:.3g}"
            rows.append((_named(layer.name), str(layer.values), moved, ratio))
        lines += _aligned(rows) if self.layers else []
        lines += [f"  {_named(layer.name)}: {remark}" for layer in self.layers for remark in layer.remarks()]
        lines += [f"  left {_named(name)} ({cls}): {reason}" for name, cls, reason in self.left]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the same as JSON types, without the old statistics; NaN becomes None."""
        return {
            "mode": self.mode,
            "batches": self.batches,
            "passes": self.passes,
            "complete": self.is_complete,
            "layers": [
                {
                    "name": layer.name,
                    "class": layer.cls,
                    "values": layer.values,
                    "inputs": layer.inputs,
                    "uses": layer.uses,
                    "mean_moved": _json(layer.mean_moved),
                    "var_ratio": [_json(ratio) for ratio in layer.var_ratio],
                    "skipped": layer.skipped,
                    "cut": layer.cut,
                    "settled": layer.settled,
                }
                for layer in self.layers
            ],
            "left": [{"name": name, "class": cls, "reason": reason} for name, cls, reason in self.left],
        }


def _json(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _named(name: str) -> str:
    return name or "(the model itself)"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('h') else 's'}"


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Return rows as lines, the first column to the left and all others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(["", first.ljust(widths[0]), *cells]))
    return lines
