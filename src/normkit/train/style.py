"""The colour and the name that a contender has in every picture of a run."""

from collections.abc import Sequence
from typing import Any, Final

from matplotlib.colors import to_hex, to_rgb

from normkit.train.results import NormResult

# Okabe and Ito's colours, which stay apart for colour-blind readers; one norm has one colour in every run.
NORM_COLOURS: Final = {
    "batch": "#0072B2",
    "layer": "#009E73",
    "group": "#CC79A7",
    "instance": "#E69F00",
    "none": "#555555",
}
OWN_COLOURS: Final = ("#D55E00", "#6A3D9A", "#8C510A", "#000000")
_PALE: Final = 0.55


def colours(results: Sequence[NormResult]) -> dict[str, str]:
    """Return the colour of each contender by its label: torch.nn's are pale, and own layers have their own."""
    owns = [result.label for result in results if result.target]
    found = {}
    for result in results:
        if result.target:
            found[result.label] = OWN_COLOURS[owns.index(result.label) % len(OWN_COLOURS)]
        else:
            colour = NORM_COLOURS[result.norm]
            found[result.label] = pale(colour) if result.impl == "torch" else colour
    return found


def pale(colour: str) -> str:
    """Mix a colour with white."""
    red, green, blue = (part + _PALE * (1 - part) for part in to_rgb(colour))
    return to_hex((red, green, blue))


def line(result: NormResult, colour: str) -> dict[str, Any]:
    """Return how a contender is drawn: beside other implementations in lines that show those under them."""
    if result.impl == "torch":
        return {"color": colour, "linewidth": 6.0, "zorder": 1.0}
    if result.impl and not result.target:
        return {"color": colour, "linewidth": 3.0, "zorder": 1.5}
    return {"color": colour, "marker": "o", "markersize": 3}


def title(result: NormResult) -> str:
    """Name a contender for people."""
    if result.norm == "none":
        return "no norm"
    return f"{result.norm} norm, {spelled(result.impl)}" if result.impl else f"{result.norm} norm"


def spelled(impl: str) -> str:
    """Name an implementation for people."""
    return "torch.nn" if impl == "torch" else impl
