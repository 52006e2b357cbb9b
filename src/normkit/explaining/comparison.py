"""The norms side by side, over images, sequences and plain features."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from normkit.explaining.case import Case, axis_names, case_of
from normkit.explaining.example import Array, example
from normkit.explaining.normalization import refuse_as_the_layer
from normkit.explaining.shown import Shown

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
class Comparison(Shown):
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
        num_groups: Groups of the group norm; None: the fewest above one that divide the channels.
    Raises:
        UserError: what a layer refuses, in its words.
    """
    rows = []
    for shape, channels_last in inputs:
        x = example(shape, channels_last=channels_last)
        names = axis_names(len(shape), channels_last=channels_last)
        groups = num_groups or _fewest_groups(shape[names.index("C")] if names else 1)
        cases = [
            case_of(kind, shape, num_groups=groups if kind == "group" else None, channels_last=channels_last)
            for kind in KINDS
        ]
        rows.append(Row(names, tuple(shape), tuple(_panel(case, x) for case in cases)))
    return Comparison(tuple(rows))


def _fewest_groups(channels: int) -> int:
    """Return the smallest number of groups above one that divides the channels."""
    return next((groups for groups in range(2, channels + 1) if channels % groups == 0), 1)


def _panel(case: Case, x: Array) -> Panel:
    is_single = case.kind in ("batch", "instance") and len(case.shape) > 1 and case.count == 1
    if not is_single:
        refuse_as_the_layer(case, x)
    return Panel(case, is_defined=not is_single)


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
