"""Measure which outputs one element of the input reaches: what is averaged over."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from normkit.checking.patterns import Pattern, Values, candidates, grouping, reducing
from normkit.checking.target.geometry import Geometry

Forward = Callable[[Values], Values]


def measure_pattern(forward: Forward, x: Values, patterns: Sequence[Pattern]) -> Pattern | None:
    """Find the first pattern that explains which outputs change with an element of x; None where none does."""
    reached = _reach(forward, x)
    for pattern in patterns:
        if all(np.array_equal(touched, pattern.labels == pattern.labels[element]) for element, touched in reached):
            return pattern
    return None


def _reach(forward: Forward, x: Values) -> list[tuple[tuple[int, ...], npt.NDArray[np.bool_]]]:
    """Change a few elements one by one, and return for each which outputs change."""
    base = forward(x)
    threshold = 1e-5 * max(float(np.abs(base[np.isfinite(base)]).max(initial=0.0)), 1e-3)
    generator = np.random.default_rng(3)
    elements = {tuple(0 for _ in x.shape), tuple(size - 1 for size in x.shape)}
    while len(elements) < min(4, x.size):
        elements.add(tuple(int(generator.integers(size)) for size in x.shape))
    found = []
    for element in sorted(elements):
        touched = np.zeros(x.shape, dtype=bool)
        for step in (3.0, -2.0):
            changed = x.copy()
            changed[element] += step
            touched |= ~(np.abs(forward(changed) - base) <= threshold)
        found.append((element, touched))
    return found


def all_patterns(shape: tuple[int, ...], channel: int, names: str) -> list[Pattern]:
    """List every candidate, without doubles."""
    kept: list[Pattern] = []
    for pattern in candidates(shape, channel, names):
        if not any(pattern.same(other) for other in kept):
            kept.append(pattern)
    return kept


def expected_patterns(
    family: str, geometry: Geometry, rank: int, batch: int | None = None, *, open_axes: bool = False
) -> list[Pattern]:
    """List what the family may average over.

    Args:
        family: The family.
        geometry: The axes of the input.
        rank: The rank of the input.
        batch: The number of samples.
        open_axes: Whether nothing tells how many axes are features, so that layer normalization may take any.
    """
    shape, names, channel = geometry.shape(rank, batch), geometry.axis_names(rank), geometry.channel_axis(rank)
    spatial = tuple(axis for axis in range(1, rank) if axis != channel)
    if family == "other":
        return []
    if family == "batch":
        return [reducing(shape, (0, *spatial), names)]
    if family == "instance":
        return [reducing(shape, spatial, names)]
    if family == "group":
        return [grouping(shape, geometry.groups, channel, names, spatial=True, kind="neighbours")]
    if not geometry.last:
        return [reducing(shape, (channel,), names)]
    counts = range(1, rank) if open_axes else [len(geometry.features)]
    return [reducing(shape, tuple(range(rank - count, rank)), names) for count in counts]
