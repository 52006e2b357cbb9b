"""An array as slabs, one a sample, of rows and columns: how pictures and pages lay out its cells."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from normkit.explaining.case import Case, Indices
from normkit.explaining.text import labels_of

MAX_SLABS, MAX_ROWS, MAX_COLUMNS = 3, 12, 12
"""What is shown of a larger array: its first cells."""

NO_SPATIAL: Final = 3
"""Arrays of fewer axes than this make one slab: every sample is a row."""


def as_slabs(case: Case, array: NDArray[Any]) -> NDArray[Any]:
    """Return an array in the shape of its case as (slabs, rows, columns), cut off where it is large.

    A row is a channel and a column a position; with the channels last it is the other way round, as in memory.
    """
    if len(case.shape) < NO_SPATIAL:
        slabs = array.reshape(1, -1, case.shape[-1])
    elif case.channels_last:
        slabs = array.reshape(case.shape[0], -1, case.shape[-1])
    else:
        slabs = array.reshape(case.shape[0], case.shape[1], -1)
    return slabs[:MAX_SLABS, :MAX_ROWS, :MAX_COLUMNS]


def axes_of_slab(case: Case) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of the axes along the rows and along the columns of a slab."""
    if len(case.shape) < NO_SPATIAL:
        return case.axes[:-1], case.axes[-1:]
    end = len(case.shape) - 1 if case.channels_last else 2
    return case.axes[1:end], case.axes[end:]


def is_cut(case: Case) -> bool:
    """Whether an array is larger than what is shown of it."""
    return as_slabs(case, case.sets).size < case.sets.size


def row_labels(case: Case) -> list[str]:
    """Return the label of each row of a slab."""
    names, _ = axes_of_slab(case)
    return labels_of(names, _sizes(case, names))[:MAX_ROWS]


def column_labels(case: Case) -> list[str]:
    """Return the label of each column of a slab."""
    _, names = axes_of_slab(case)
    return labels_of(names, _sizes(case, names))[:MAX_COLUMNS]


def _sizes(case: Case, names: tuple[str, ...]) -> list[int]:
    return [case.shape[case.axes.index(name)] for name in names]


@dataclass(frozen=True)
class Parameter:
    """Weight and bias along the axes of a slab on which they vary.

    Args:
        numbers: The position of each weight, shape (rows, columns), where either may be 1.
        is_below: Whether it is one row, which belongs under a slab; otherwise it stands beside it.
    """

    numbers: Indices
    is_below: bool


def parameter(case: Case) -> Parameter:
    """Return where weight and bias vary: a slab, a column, a row or one cell."""
    slab = as_slabs(case, case.weights)[0]
    numbers = slab[:, :1] if (slab == slab[:, :1]).all() else slab
    numbers = numbers[:1] if (numbers == numbers[:1]).all() else numbers
    return Parameter(np.asarray(numbers), numbers.shape[0] == 1 and numbers.shape[1] == slab.shape[1] > 1)
