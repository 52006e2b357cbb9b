"""Say what a normalization of no known family is: a blend of known ones, one with a name, or what it averages over."""

import itertools
from collections.abc import Iterator

import numpy as np

from normkit.checking.measure.axes import Forward, expected_patterns, measure_pattern
from normkit.checking.measure.probe import Probe
from normkit.checking.patterns import Pattern, Values, reducing, standardize
from normkit.checking.target.errors import TargetError
from normkit.checking.target.state import as_values

_FITS = 2e-3
_COUNTS = 0.02
_CLOSE = 1e-3
_SAME = 0.02


def describe_blend(probe: Probe, rank: int, forward: Forward | None = None) -> str | None:
    """Name the normalizations of which the output is a weighted sum; None where it is no such sum.

    Args:
        probe: The target.
        rank: The rank of the input.
        forward: Calls the layer; None calls it as it is built. The weights of the sum may differ between channels.
    """
    x = probe.x(rank)
    y = probe.forward(probe.layer(rank), x) if forward is None else forward(x)
    if y.shape != x.shape or rank < 3:
        return None
    names, patterns = zip(*_parts(probe, rank), strict=True)
    parts = [standardize(x, pattern, eps=1e-5) for pattern in patterns]
    used: set[int] = set()
    axis = probe.geometry.channel_axis(rank)
    for channel in range(x.shape[axis]):
        design = np.stack([np.take(part, channel, axis).reshape(-1) for part in parts], axis=1)
        wanted = np.take(y, channel, axis).reshape(-1)
        best = _smallest_sum(design, wanted)
        if best is None:
            return None
        used |= best
    if len(used) < 2:
        return None
    listed = [names[index] for index in sorted(used)]
    return f"a blend of {', '.join(listed[:-1])} and {listed[-1]} normalization"


def _smallest_sum(design: Values, wanted: Values) -> set[int] | None:
    """The fewest columns of which a weighted sum gives what is wanted."""
    for count in range(1, design.shape[1] + 1):
        for columns in itertools.combinations(range(design.shape[1]), count):
            chosen = design[:, columns]
            weights = np.linalg.lstsq(chosen, wanted, rcond=None)[0]
            if float(np.abs(chosen @ weights - wanted).max()) < _FITS:
                return {column for column, weight in zip(columns, weights, strict=True) if abs(weight) > _COUNTS}
    return None


def _parts(probe: Probe, rank: int) -> Iterator[tuple[str, Pattern]]:
    for family in ("batch", "instance"):
        (pattern,) = expected_patterns(family, probe.geometry, rank)
        yield family, pattern
    yield "layer", reducing(probe.geometry.shape(rank), tuple(range(1, rank)), probe.geometry.axis_names(rank))


def describe_response(probe: Probe, rank: int) -> str | None:
    """Tell global response normalization: x + weight * x * (its norm a channel, relative to the mean norm) + bias.

    Woo et al. 2023, ConvNeXt V2, arXiv 2301.00808.
    """
    if rank < 3 or "weight" not in probe.affine:
        return None
    x = probe.x(rank)
    layer = probe.builder.build(rank)
    layer.write(weight=np.ones(1), bias=np.zeros(1))
    y = probe.forward(layer, x)
    channel = probe.geometry.channel_axis(rank)
    spatial = tuple(axis for axis in range(1, rank) if axis != channel)
    norm = np.sqrt((x**2).sum(spatial, keepdims=True))
    relative = norm / (norm.mean(channel, keepdims=True) + 1e-6)
    if y.shape == x.shape and float(np.abs(y - (x + x * relative)).max()) < _CLOSE * float(np.abs(y).max()):
        return "global response normalization (GRN)"
    return None


def describe_changed(probe: Probe, rank: int, path: str) -> str | None:
    """Say what it is with another value of one of its parameters; None where it is of its family all the same."""

    def forward(x: Values) -> Values:
        layer = probe.layer(rank)
        slot = next(slot for slot in layer.all_slots() if slot.path == path)
        held = as_values(layer.library, slot.read())
        layer.fill(slot, np.asarray(held * 0.4 + np.linspace(0.1, 0.2, held.size).reshape(held.shape)))
        return probe.forward(layer, x)

    if (blend := describe_blend(probe, rank, forward)) is not None:
        return blend
    pattern = measure_pattern(forward, probe.x(rank), probe.all_patterns(rank))
    if pattern is not None and any(pattern.same(expected) for expected in probe.expected(rank)):
        return None
    words = "an irregular set of elements" if pattern is None else pattern.words
    return f"with another {path} it averages over {words}"


def describe_scaling(probe: Probe, rank: int) -> str | None:
    """Say that it normalizes nothing, by what a larger input does; None where it normalizes, rightly or not.

    A normalization gives the same for an input ten times as large. One that divides by the variance gives a tenth, one
    that forgets to divide ten times as much, but is blind to the level of the input.
    """
    x = probe.x(rank)
    x = x - x.mean()
    outputs = [probe.forward(probe.layer(rank), probe.cast(values)) for values in (x, 10.0 * x, x + 3.0)]
    plain, larger, raised = outputs
    size = float(np.abs(plain).max())
    if not size or not all(np.isfinite(output).all() for output in outputs):
        return None
    is_blind = float(np.abs(raised - plain).max()) < _SAME * size
    factors = (1.0, 0.1, *((10.0,) if is_blind else ()))
    if any(float(np.abs(larger / factor - plain).max()) < _SAME * size for factor in factors):
        return None
    return "it normalizes nothing: ten times the input does not give the same output"


def describe_axes(probe: Probe, rank: int) -> str:
    """Say what one element of the input reaches."""
    pattern = probe.pattern(rank)
    if pattern is None or pattern.count == 1:
        return "its axes are those of no family"
    return f"it averages over {pattern.words}, as no family does"


def standardizes_its_weights(probe: Probe, rank: int) -> bool:
    """Whether another scale and level of a layer's weight leave its output as it is: weight standardization."""
    try:
        layer = probe.builder.build(rank)
        weight = getattr(layer.instance, "weight", None)
        if weight is None or not layer.library.owns(weight):
            return False
        x = probe.x(rank)
        before = probe.forward(layer, x, training=False)
        weight.data.mul_(2.0).add_(3.0)
        after = probe.forward(layer, x, training=False)
    except TargetError:
        return False
    return bool(np.abs(before).max() > _CLOSE and np.abs(after - before).max() < _CLOSE * np.abs(before).max())
