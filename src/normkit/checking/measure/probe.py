"""A target ready for measuring: its family, the inputs it is measured on, and what it averages over."""

import itertools
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from normkit.checking.measure.axes import all_patterns, expected_patterns, measure_pattern
from normkit.checking.measure.calls import call, doing, running
from normkit.checking.patterns import Pattern, Values, reducing, standardize
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.arrays import Array, Library
from normkit.checking.target.builder import Builder
from normkit.checking.target.errors import TargetError
from normkit.checking.target.geometry import Geometry
from normkit.checking.target.resolve import Candidate, Resolved
from normkit.checking.target.state import AFFINE


def probe_of(candidate: Candidate, family: str) -> "Probe":
    """Open a probe for a way to call a target, at the one rank on which it is known to run."""
    return Probe(Resolved(candidate.builder, candidate.claim, (candidate.rank,), {}), candidate.builder, family)


def outer_affine(probe: "Probe", shape: tuple[int, ...]) -> tuple[Values, Values] | None:
    """Fit y = a * x_hat + b for each sample and channel; None where no such a and b explain another input too."""
    rank = len(shape)
    if rank < 3 or 0 in shape or shape[1:] != probe.geometry.shape(rank)[1:]:
        return None
    (each,) = expected_patterns("instance", probe.geometry, rank, shape[0])
    (pattern, *_) = probe.expected(rank, shape[0])
    found: list[tuple[Values, Values, Values]] = []
    for seed in (81, 82):
        x = probe.cast(np.random.default_rng(seed).normal(0.5, 2.0, shape))
        y = call(probe.builder.build(rank), x)
        if y.shape != shape:
            return None
        x_hat = standardize(x, pattern, eps=1e-5, subtract_mean=probe.family != "rms")
        centred = x_hat - each.average(x_hat)
        a = each.average(centred * y) / np.maximum(each.average(centred**2), 1e-12)
        b = each.average(y) - a * each.average(x_hat)
        found.append((a, b, y - a * x_hat - b))
    (a, b, residual), (other, _, further) = found
    largest = max(float(np.abs(residual).max()), float(np.abs(further).max()), float(np.abs(a - other).max()))
    return (a, b) if largest < OUTER_TOLERANCE and float(np.abs(a).min()) > _LEAST_SCALE else None


_LEAST_SCALE = 5e-4
OUTER_TOLERANCE = 5e-3
"""Of what a scale and a shift for each sample and channel leave unexplained."""


class Probe:
    """A target and the family it is measured as: it makes inputs, builds layers and calls them.

    Args:
        resolved: What was found out about the target.
        builder: How to build and call it; its geometry may differ from the one in ``resolved``.
        family: The family it is held against.
    """

    def __init__(self, resolved: Resolved, builder: Builder, family: str) -> None:
        self.resolved = resolved
        self.builder = builder
        self.family = family
        self.library: Library = builder.library
        self.undoes = False
        self._outer: dict[tuple[int, ...], tuple[Values, Values] | None] = {}
        self._patterns: dict[tuple[int, int], Pattern | None] = {}

    @property
    def geometry(self) -> Geometry:
        """The axes of its input."""
        return self.builder.geometry

    # Layers and calls

    def layer(self, rank: int | None = None, *, neutral: bool = True, **overrides: Any) -> Adapter:
        """Build a fresh layer.

        Args:
            rank: The rank of its inputs.
            neutral: Whether to set weight to 1 and bias to 0, so that only the statistics show.
            overrides: Values by role that an experiment sets.
        """
        layer = self.builder.build(rank or self.rank, **overrides)
        if neutral:
            if self.makes_affine_late:
                self.forward(layer, self.x(rank, seed=999))
            with running("setting weight and bias"):
                layer.write(weight=np.full(1, self.unit_weight), bias=np.zeros(1))
        return layer

    def train(self, rank: int | None = None, steps: int = 3, *, neutral: bool = True, **overrides: Any) -> Adapter:
        """Build a layer and show it a few batches."""
        layer = self.layer(rank, neutral=neutral, **overrides)
        for step in range(steps):
            self.forward(layer, self.x(rank, seed=100 + step))
        return layer

    def forward(self, layer: Adapter, x: Values, *, training: bool = True, grad: bool | None = None) -> Values:
        """Call a layer on float64 values; what further inputs scale and shift is undone."""
        return self.undo(call(layer, x, training=training, grad=grad))

    def undo(self, y: Values) -> Values:
        """Take away the scale and the shift that further inputs give to each sample and channel, where they do."""
        if not self.undoes:
            return y
        if y.shape not in self._outer:
            self._outer[y.shape] = outer_affine(self, y.shape)
        outer = self._outer[y.shape]
        return y if outer is None else (y - outer[1]) / outer[0]

    def run(self, layer: Adapter, x: Array, *, training: bool = True, grad: bool | None = None) -> Array:
        """Call a layer on an array of its own library."""
        with running(doing(tuple(x.shape), training=training)):
            return layer.run(x, training=training, grad=grad)

    # Inputs

    def x(self, rank: int | None = None, batch: int | None = None, seed: int = 0) -> Values:
        """Make a plain input: standard deviation around 2, mean around 0.5, different in every channel and sample."""
        shape = self.geometry.shape(rank or self.rank, batch)
        generator = np.random.default_rng(seed)
        spread = [
            generator.uniform(-1, 1, [size if axis == index else 1 for axis, size in enumerate(shape)])
            for index in range(2)
        ]
        channel_axis = self.geometry.channel_axis(len(shape))
        channel = generator.uniform(-1, 1, [size if axis == channel_axis else 1 for axis, size in enumerate(shape)])
        values = generator.normal(0.5, 2.0, shape) * np.exp(0.3 * channel) + spread[0] + channel
        return self.cast(values)

    def cast(self, values: Values) -> Values:
        """Round to the precision that the target receives."""
        return self.library.values(self.library.make(values))

    @cached_property
    def rank(self) -> int:
        """The rank that most experiments use."""
        told = self.resolved.rank
        if told is not None and told > 2 and told in self.ranks:
            return told
        order = (3, 2, 4, 5) if self.family in ("layer", "rms") else (4, 3, 2, 5)
        return next(rank for rank in order if rank in self.ranks)

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The input ranks to check: those that its name promises, or else all that it takes and that make sense."""
        return tuple(rank for rank in self._sensible_ranks if rank not in self.accepted_but_wrong_ranks)

    @cached_property
    def accepted_but_wrong_ranks(self) -> tuple[int, ...]:
        """Ranks that the target takes without being meant for them: it reduces the axes of another rank."""
        if self.resolved.claim.ranks:
            return ()
        try:
            right = [rank for rank in self._sensible_ranks if self.as_expected(rank)]
            meant = {pattern.axes for rank in right if (pattern := self.pattern(rank)) is not None}
            wrong = [rank for rank in self._sensible_ranks if rank not in right]
            if self.family == "group":
                beyond = right and min(wrong, default=6) > max(right) and not any(map(self.has_wrong_groups, wrong))
                return tuple(wrong) if beyond else ()
            if all((p := self.pattern(rank)) is not None and p.axes in meant for rank in wrong):
                return tuple(wrong)
        except TargetError:
            pass
        return ()

    @property
    def _sensible_ranks(self) -> tuple[int, ...]:
        promised = self.resolved.claim.ranks
        least = 3 if self.family in ("instance", "group") else 2
        sensible = tuple(r for r in self.resolved.ranks if r >= least) or self.resolved.ranks
        return tuple(r for r in sensible if r in promised) or sensible

    # Weight and bias

    @cached_property
    def affine(self) -> tuple[str, ...]:
        """The ones of weight and bias that it has."""
        rank = self._sensible_ranks[0]
        layer = self.builder.build(rank)
        slots = dict(layer.slots())
        if self.makes_affine_late:
            self.forward(layer, self.x(rank))
            slots = layer.slots()
        return tuple(role for role in AFFINE if role in slots)

    @cached_property
    def makes_affine_late(self) -> bool:
        """Whether weight or bias is made in the first call."""
        roles = set((self.builder.roles or {}).values()) & set(AFFINE)
        return bool(roles - set(self.builder.build(self._sensible_ranks[0]).slots()))

    def scaled(self, plain: Values, weight: Values | None, bias: Values | None) -> Values | None:
        """Compute plain * weight + bias, along the channels or the last axes; None where the sizes fit neither."""
        trailing = plain.shape[plain.ndim - len(self.geometry.features) :]
        channels = plain.shape[self.geometry.channel_axis(plain.ndim)]
        for values, join in ((weight, np.multiply), (bias, np.add)):
            if values is None:
                continue
            if len(trailing) > 1 and values.size == int(np.prod(trailing)):
                plain = join(plain, values.reshape(trailing))
            elif values.size in (1, channels):
                plain = join(plain, values.reshape(self.geometry.per_channel(plain.ndim)))
            else:
                return None
        return plain

    @cached_property
    def unit_weight(self) -> float:
        """The weight that changes nothing: 1, or 0 where the layer multiplies by 1 + weight."""
        if "weight" not in self.affine:
            return 1.0
        rank = self._sensible_ranks[0]
        layer = self.builder.build(rank)
        if self.makes_affine_late or layer.read("weight")["weight"].any():
            return 1.0
        return 0.0 if float(self.forward(layer, self.x(rank)).std()) > 0.1 else 1.0

    # Axes

    def pattern(self, rank: int | None = None, batch: int | None = None) -> Pattern | None:
        """Measure what it averages over for inputs of this rank and batch size; None where nothing regular is."""
        rank, batch = rank or self.rank, batch or self.geometry.batch
        if (rank, batch) not in self._patterns:
            self._patterns[rank, batch] = self._measure_pattern(rank, batch)
        return self._patterns[rank, batch]

    def _measure_pattern(self, rank: int, batch: int) -> Pattern | None:
        def forward(values: Values) -> Values:
            return self.forward(self.layer(rank), values)

        x = self.x(rank, batch)
        return measure_pattern(forward, x, self.all_patterns(rank, batch)) if forward(x).shape == x.shape else None

    def all_patterns(self, rank: int, batch: int | None = None) -> list[Pattern]:
        """List all that it might average over."""
        geometry = self.geometry
        return all_patterns(geometry.shape(rank, batch), geometry.channel_axis(rank), geometry.axis_names(rank))

    def expected(self, rank: int | None = None, batch: int | None = None) -> list[Pattern]:
        """List what its family may average over."""
        rank = rank or self.rank
        found = expected_patterns(self.family, self.geometry, rank, batch, open_axes=self._open_axes)
        wide = self._axes_of_weight(rank) if self.family in ("layer", "rms") else 0
        if wide:
            shape, names = self.geometry.shape(rank, batch), self.geometry.axis_names(rank)
            found = [reducing(shape, tuple(range(rank - wide, rank)), names)]
        return found

    def _axes_of_weight(self, rank: int) -> int:
        """How many of the last axes the weight covers, where it is more than one: normalized_shape then has them."""
        layer = self.started(rank)
        shape = self.geometry.shape(rank)
        for values in layer.read(*AFFINE).values():
            for count in range(2, rank):
                if values.size == int(np.prod(shape[rank - count :])) and len(self.geometry.features) == 1:
                    return count
        return 0

    def started(self, rank: int | None = None) -> Adapter:
        """Build a layer whose weight and bias have their own initial values; some make them in the first call."""
        layer = self.layer(rank, neutral=False)
        if self.makes_affine_late:
            self.forward(layer, self.x(rank))
        return layer

    def as_expected(self, rank: int | None = None, batch: int | None = None) -> bool:
        """Whether the measured axes are those of its family."""
        pattern = self.pattern(rank, batch)
        return pattern is not None and any(pattern.same(expected) for expected in self.expected(rank, batch))

    @cached_property
    def _open_axes(self) -> bool:
        """Whether nothing says how many of the last axes are features."""
        told = any(self.builder.accepts(role) for role in ("features", *AFFINE))
        return not told and not self.affine and self.builder.kind != "module"

    def has_wrong_groups(self, rank: int) -> bool:
        """Whether it groups channels, but other ones than neighbours."""
        pattern = self.pattern(rank)
        return self.family == "group" and pattern is not None and pattern.strange_groups

    @cached_property
    def gives_numbers(self) -> bool:
        """Whether the output for an ordinary input is finite."""
        return bool(np.isfinite(self.forward(self.layer(), self.x())).all())

    @cached_property
    def applies_relu(self) -> bool:
        """Whether it is as expected but for negative outputs, which are zero."""
        return self._is_expected(lambda y, z: bool(y.min() >= 0 and np.allclose(y, np.maximum(z, 0), atol=5e-3)))

    @cached_property
    def is_permuted(self) -> bool:
        """Whether the outputs are the expected ones, but in another order."""
        return self._is_expected(lambda y, z: np.allclose(np.sort(y, axis=None), np.sort(z, axis=None), atol=5e-3))

    def _is_expected(self, compare: Callable[[Values, Values], bool]) -> bool:
        """Whether an output that is not as expected compares to what the family's definition gives."""
        if self.as_expected():
            return False
        x = self.x()
        y = self.forward(self.layer(), x)
        centred = (False,) if self.family == "rms" else (True, False)
        pairs = itertools.product(self.expected(), centred)
        definitions = [standardize(x, pattern, eps=1e-5, subtract_mean=centre) for pattern, centre in pairs]
        return y.shape == x.shape and any(compare(y, z) for z in definitions)
