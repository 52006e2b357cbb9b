"""Which elements share a statistic: the one thing that tells the normalizations apart, as labels.

A pattern labels every element of the input with the statistic that it belongs to. Whatever a layer averages over,
right or wrong, is such a labelling. So one definition of "normalize" (``standardize``) serves them all.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Pattern:
    """A labelling, with words for it.

    Args:
        words: What is averaged over, for people.
        labels: The number of its statistic, for every element.
        axes: The reduced axes, where whole axes are reduced.
        groups: The number of groups of channels, where channels are grouped.
        strange_groups: Whether they are groups of other channels than neighbours.
    """

    words: str
    labels: Labels
    axes: tuple[int, ...] | None = None
    groups: int | None = None
    strange_groups: bool = False

    @property
    def count(self) -> int:
        """The number of elements that a statistic averages."""
        return int(np.bincount(self.labels.reshape(-1))[0])

    @property
    def statistics(self) -> int:
        """The number of statistics."""
        return int(self.labels.max()) + 1

    def same(self, other: "Pattern") -> bool:
        """Whether both label the elements alike."""
        return bool(np.array_equal(self.labels, other.labels))

    def average(self, values: Values) -> Values:
        """Return the mean of each statistic's elements, spread over them."""
        flat = self.labels.reshape(-1)
        means = np.bincount(flat, values.reshape(-1)) / np.bincount(flat)
        return means[self.labels]


def standardize(
    x: Values,
    mean_over: Pattern,
    var_over: Pattern | None = None,
    *,
    eps: float = 0.0,
    ddof: int = 0,
    subtract_mean: bool = True,
) -> Values:
    """Compute (x - mean) / sqrt(var + eps) in float64: the definition that targets are held against."""
    var_over = var_over or mean_over
    mean = mean_over.average(x) if subtract_mean else np.zeros_like(x)
    centre = var_over.average(x) if subtract_mean else mean
    var = var_over.average((x - centre) ** 2) * var_over.count / max(var_over.count - ddof, 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((x - mean) / np.sqrt(var + eps))


def reducing(shape: tuple[int, ...], axes: tuple[int, ...], names: str) -> Pattern:
    """Average over whole axes."""
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    grid = np.arange(int(np.prod(kept))).reshape([1 if axis in axes else size for axis, size in enumerate(shape)])
    return Pattern(_words(axes, names), _numbered(np.broadcast_to(grid, shape)), axes)


def grouping(shape: tuple[int, ...], groups: int, channel: int, names: str, *, spatial: bool, kind: str) -> Pattern:
    """Average over groups of channels of each sample.

    Args:
        shape: The input's shape.
        groups: How many groups.
        channel: The axis of the channels.
        names: One letter an axis.
        spatial: Whether spatial axes are averaged over too.
        kind: "neighbours" as it should be, "strided" for every G-th channel, "memory" for equal runs of memory.
    """
    sample = np.arange(shape[0]).reshape(-1, *(1,) * (len(shape) - 1))
    size = shape[channel] // groups
    channels = np.arange(shape[channel])
    index = channels // size if kind == "neighbours" else channels % groups
    column = index.reshape([-1 if axis == channel else 1 for axis in range(len(shape))])
    if kind == "memory":
        run = int(np.prod(shape[1:])) // groups
        column = (np.arange(int(np.prod(shape[1:]))) // run).reshape(1, *shape[1:])
    labels = np.broadcast_to(sample * groups + column, shape)
    if not spatial:
        rest = [size if axis not in (0, channel) else 1 for axis, size in enumerate(shape)]
        labels = labels * int(np.prod(rest)) + np.arange(int(np.prod(rest))).reshape(rest)
    what = {
        "neighbours": f"{groups} groups of {size} neighbouring channels",
        "strided": f"{groups} groups of interleaved channels",
        "memory": f"{groups} equal runs of memory, which cut across the channels",
    }[kind]
    where = f" and {', '.join(n for n in names if n not in 'NC')}" if spatial and len(shape) > 2 else ""
    return Pattern(f"{what}{where}, of each sample", _numbered(labels), None, groups, kind != "neighbours")


def columns(shape: tuple[int, ...], count: int) -> Pattern:
    """Average over the columns of the memory, cut into rows of ``count`` elements."""
    labels = np.arange(int(np.prod(shape))).reshape(shape) % count
    return Pattern(f"every {count}th element of memory, as reshape(-1, {count}) without a transpose gives", labels)


def candidates(shape: tuple[int, ...], channel: int, names: str) -> Iterator[Pattern]:
    """Yield every labelling that a layer may plausibly have, the simplest first."""
    for count in range(len(shape) + 1):
        for axes in itertools.combinations(range(len(shape)), count):
            yield reducing(shape, axes, names)
    yield columns(shape, shape[channel])
    divisors = [g for g in range(2, shape[channel]) if shape[channel] % g == 0]
    for groups, kind, spatial in itertools.product(divisors, ("neighbours", "strided", "memory"), (True, False)):
        if kind != "memory" or spatial:
            yield grouping(shape, groups, channel, names, spatial=spatial, kind=kind)


def _numbered(labels: npt.NDArray[np.intp]) -> Labels:
    return np.asarray(np.unique(labels, return_inverse=True)[1], dtype=np.intp).reshape(labels.shape)


def _words(axes: tuple[int, ...], names: str) -> str:
    if not axes:
        return "nothing: each element by itself"
    letters = ", ".join(names[axis] for axis in axes)
    if len(axes) == len(names):
        return f"{letters}: the whole tensor"
    kept = [name for axis, name in enumerate(names) if axis not in axes]
    if kept == ["C"]:
        return f"{letters}: per channel"
    if kept == ["N"]:
        return f"{letters}: per sample"
    if letters == "C":
        return "C: per sample and position"
    if kept == ["N", "C"]:
        return f"{letters}: per sample and channel"
    return letters
