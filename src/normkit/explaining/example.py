"""Small arrays of numbers to look at, where nobody gives his own."""

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from normkit.errors import UserError
from normkit.explaining.case import axis_names, require_sizes

Array = NDArray[np.float64]

LARGEST: Final = 1_000_000
"""Values of an example."""

SHAPE: Final = (2, 4, 2, 2)
"""(N, C, H, W) of an example: small enough to see every value, large enough to tell the norms apart."""


def example(shape: Sequence[int] | None = None, *, channels_last: bool = False, seed: int = 0) -> Array:
    """Return numbers with one decimal, whose channels lie around different means, as a network's activations do.

    Raises:
        UserError: a shape of too many values.
    """
    if shape is None:
        shape = (SHAPE[0], *SHAPE[2:], SHAPE[1]) if channels_last else SHAPE
    if math.prod(require_sizes(shape)) > LARGEST:
        raise UserError(f"an example has up to {LARGEST:,} values; a `shape` of {math.prod(shape):,} is too large")
    generator = np.random.default_rng(seed)
    values = generator.normal(size=tuple(shape))
    names = axis_names(len(shape), channels_last=channels_last)
    if "C" in names:
        channels = along(np.arange(shape[names.index("C")]), names.index("C"), len(shape))
        values = values * (1.0 + channels % 3) + 2.0 * channels - 1.0
    return np.round(values, 1) + 0.0  # no -0.0


def learned(shape: Sequence[int]) -> tuple[Array, Array]:
    """Return a weight and a bias of this shape, as training may have left them: few values, easy to follow."""
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(tuple(shape))
    return np.asarray([1.0, 1.5, 0.5, 2.0])[numbers % 4], np.asarray([0.0, 0.5, -0.5, 1.0])[numbers % 4]


def along(vector: NDArray[Any], axis: int, rank: int) -> NDArray[Any]:
    """Return a vector in the shape in which it broadcasts along one axis."""
    return vector.reshape([-1 if position == axis else 1 for position in range(rank)])
