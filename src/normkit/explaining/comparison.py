"""The norms side by side, over images, sequences and plain features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from normkit.explaining.case import Case, axis_names, case_of
from normkit.explaining.example import example
from normkit.explaining.normalization import refuse_as_the_layer

KINDS: Final = ("batch", "layer", "instance", "group", "rms")
"""The norms that are compared, in the order of the usual picture."""

# (shape, channels_last): images, sequences as transformers have them, features
INPUTS: Final = (((2, 4, 2, 2), False), ((2, 3, 4), True), ((3, 4), False))


@dataclass(frozen=True)
class Panel:
    """One norm of one input.

    Args:
        case: Which normalization.
        is_defined: Whether its means average more than one value, without which the layer refuses the input.
    """

    case: Case
    is_defined: bool


@dataclass(frozen=True)
class Row:
    """All norms of one input."""

    axes: tuple[str, ...]
    shape: tuple[int, ...]
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Comparison:
    """All norms of all inputs."""

    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {
            "rows": [
                {
                    "axes": list(row.axes),
                    "shape": list(row.shape),
                    "norms": [_panel_dict(panel) for panel in row.panels],
                }
                for row in self.rows
            ]
        }


def compare(inputs: Sequence[tuple[Sequence[int], bool]] = INPUTS, *, num_groups: int | None = None) -> Comparison:
    """Put batch, layer, instance, group and RMS normalization side by side.

    Args:
        inputs: The shape of each input, and whether its channels are last.
        num_groups: Groups of the group norm; None: 2.
    Raises:
        UserError: what a layer refuses, in its words.
    """
    rows = []
    for shape, channels_last in inputs:
        x = example(shape, channels_last=channels_last)
        panels = []
        for kind in KINDS:
            case = case_of(kind, shape, num_groups=num_groups if kind == "group" else None, channels_last=channels_last)
            is_defined = case.count > 1 or kind not in ("batch", "instance")
            if is_defined:
                refuse_as_the_layer(case, x)
            panels.append(Panel(case, is_defined))
        rows.append(Row(axis_names(len(shape), channels_last=channels_last), tuple(shape), tuple(panels)))
    return Comparison(tuple(rows))


def _panel_dict(panel: Panel) -> dict[str, Any]:
    case = panel.case
    tree: dict[str, Any] = {"norm": case.kind, "layer": case.layer, "defined": panel.is_defined}
    if not panel.is_defined:
        return tree
    return {
        **tree,
        "reduced": list(case.reduced),
        "affine": list(case.weighted),
        "means": case.num_sets,
        "count": case.count,
        "weight_shape": list(case.weight_shape),
        "sets": case.sets.tolist(),
        "weight_index": case.weights.tolist(),
    }
