"""What is compared with torch.nn in a training, and what each may differ by."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

# float32 carries 6e-8, and running statistics were never further apart than a few of these.
RUNNING_TOLERANCE: Final = 1e-5
# Outputs pass through four normalizations, each of which enlarges what is left of a channel after its mean is taken
# away: right layers were up to 4e-6 apart. A wrong formula is off by 1e-3 and more where a batch has 64 values.
OUTPUT_TOLERANCE: Final = 1e-4
# A gradient is a sum of many terms that nearly cancel, through four normalizations: torch.nn in float32 is itself
# 7e-5 away from torch.nn in float64 in 500 steps on Fashion-MNIST, and more as gradients shrink in a long training.
# A wrong formula is off by 1e-2 and more.
GRADIENT_TOLERANCE: Final = 1e-3


@dataclass(frozen=True)
class Difference:
    """The largest relative difference of one quantity in one step, and the layer that it is told of."""

    value: float
    layer: str


@dataclass(frozen=True)
class Quantity:
    """Something that is compared, layer by layer.

    Args:
        name: Its name in records.
        title: Its name for people.
        tolerance: The largest relative difference that rounding may make.
        goes_back: Whether a difference is passed on to the layers before it, as a gradient's is.
    """

    name: str
    title: str
    tolerance: float
    goes_back: bool = False

    def exceeded_by(self, value: float) -> bool:
        """Whether a difference is beyond the tolerance; one that is not a number is."""
        return not value <= self.tolerance

    def largest(self, by_layer: Mapping[str, float]) -> Difference | None:
        """Return the largest difference of all layers; None where no layer has this quantity.

        The layer is the one where a difference beyond the tolerance begins, or else that of the largest.

        Args:
            by_layer: The difference of each layer, in the order of the network.
        """
        if not by_layer:
            return None
        value = worst(by_layer.values())
        beyond = [layer for layer, difference in by_layer.items() if self.exceeded_by(difference)]
        if beyond:
            return Difference(value, beyond[-1 if self.goes_back else 0])
        return Difference(value, max(by_layer, key=lambda layer: by_layer[layer]))


QUANTITIES: Final = (
    Quantity("output", "output", OUTPUT_TOLERANCE),
    Quantity("running_mean", "running mean", RUNNING_TOLERANCE),
    Quantity("running_var", "running variance", RUNNING_TOLERANCE),
    Quantity("gradient", "gradient", GRADIENT_TOLERANCE, goes_back=True),
    Quantity("evaluation", "evaluation", OUTPUT_TOLERANCE),
)
"""Everything that a verdict is on, in the order of a step."""


def worst(values: Iterable[float]) -> float:
    """Return the largest of some differences; not a number where one of them is none."""
    listed = list(values)
    return math.nan if any(math.isnan(value) for value in listed) else max(listed)
