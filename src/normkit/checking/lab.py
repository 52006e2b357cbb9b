"""The laboratory: one target, and every measurement that the checks share, each made once."""

import dataclasses
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np

from normkit.checking import conventions
from normkit.checking import formula as formulas
from normkit.checking.arrays import Array, Library, Values
from normkit.checking.errors import TargetError
from normkit.checking.families import CONVENTIONS, Convention, expected_patterns, twin_of
from normkit.checking.formula import Formula
from normkit.checking.gradients import Measured
from normkit.checking.layer import Layer
from normkit.checking.options import Options
from normkit.checking.patterns import Pattern
from normkit.checking.resolve import Resolved
from normkit.checking.running import Evaluation, Update, measure_evaluation, measure_update
from normkit.checking.subject import Geometry, Subject
from normkit.checking.surroundings import Settings

RUNNING = ("running_mean", "running_var")


class Lab:
    """A resolved target with its measurements.

    Args:
        resolved: How to build and call it.
        options: What the user fixed.
    """

    def __init__(self, resolved: Resolved, options: Options) -> None:
        self.resolved = resolved
        self.options = options
        self.subject: Subject = resolved.subject
        self.library: Library = self.subject.library
        self.import_changes: tuple[str, ...] = ()
        self.import_output = ""
        self._patterns: dict[tuple[int, int], Pattern | None] = {}
        self.family, self.family_reason = self._decide_family()
        self._choose_layout_and_batch()
        if self.subject.keepdims and self.rank == 2:
            self.subject = dataclasses.replace(self.subject, keepdims=False)  # (C,) does for rows
        if self.subject.momentum_required and conventions.momentum_of_old(self):
            self.subject = dataclasses.replace(self.subject, momentum=0.9)  # the usual value of that meaning
            self.__dict__.pop("momentum", None)

    @property
    def geometry(self) -> Geometry:
        """Where the features stand in the input."""
        return self.subject.geometry

    @cached_property
    def ranks(self) -> tuple[int, ...]:
        """The input ranks to check: those that its name promises, or else all that it takes and that make sense."""
        return tuple(rank for rank in self._sensible_ranks if rank not in self.ranks_out_of_reach)

    @cached_property
    def ranks_out_of_reach(self) -> tuple[int, ...]:
        """Ranks that code for (N, C) takes without being meant for them, where it then averages over N alone."""
        higher = [rank for rank in self._sensible_ranks if rank > 2]
        if self.family != "batch" or self.resolved.claim.ranks or 2 not in self._sensible_ranks:
            return ()
        try:
            if self.as_expected(2) and all((p := self.pattern(r)) is not None and p.axes == (0,) for r in higher):
                return tuple(higher)
        except TargetError:
            pass
        return ()

    @property
    def _sensible_ranks(self) -> tuple[int, ...]:
        promised = self.resolved.claim.ranks
        least = 3 if self.family == "instance" else 2
        sensible = tuple(r for r in self.resolved.ranks if r >= least) or self.resolved.ranks
        return tuple(r for r in sensible if r in promised) or sensible

    @cached_property
    def rank(self) -> int:
        """The rank that most experiments use."""
        order = (3, 2, 4, 5) if self.family in ("layer", "rms") else (4, 3, 2, 5)
        return next(rank for rank in order if rank in self.ranks)

    def x(self, rank: int | None = None, batch: int | None = None, seed: int = 0) -> Values:
        """A plain input: standard deviation around 2, mean around 0.5, different in every channel and sample."""
        shape = self.geometry.shape(rank or self.rank, batch)
        generator = np.random.default_rng(seed)
        spread = [
            generator.uniform(-1, 1, [size if axis == place else 1 for axis, size in enumerate(shape)])
            for place in range(2)
        ]
        channel = generator.uniform(
            -1, 1, [s if a == self.geometry.channel_axis(len(shape)) else 1 for a, s in enumerate(shape)]
        )
        values = generator.normal(0.5, 2.0, shape) * np.exp(0.3 * channel) + spread[0] + channel
        return self.cast(values)

    def cast(self, values: Values) -> Values:
        """Round to the precision that the target receives."""
        return self.library.values(self.library.make(values))

    @contextmanager
    def running(self, doing: str) -> Iterator[None]:
        """Quiet the target's warnings and mark its exceptions as its own."""
        try:
            with Settings(), warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                yield
        except TargetError:
            raise
        except Exception as error:
            raise TargetError(error, doing) from error

    def layer(self, rank: int | None = None, *, neutral: bool = True, **probes: Any) -> Layer:
        """A fresh layer.

        Args:
            rank: The rank of its inputs.
            neutral: Whether to set weight to 1 and bias to 0, so that only the statistics show.
            probes: Values by role that an experiment sets.
        """
        layer = self.subject.new(rank or self.rank, **probes)
        if neutral:
            with self.running("setting weight and bias"):
                layer.write(weight=np.full(1, self.unit_weight), bias=np.zeros(1))
        return layer

    def forward(self, layer: Layer, x: Values, training: bool = True, grad: bool | None = None) -> Values:
        """Call a layer on float64 values."""
        with self.running(f"calling it on shape {x.shape}{'' if training else ' in evaluation'}"):
            return layer.forward(x, training, grad)

    def run(self, layer: Layer, x: Array, training: bool = True, grad: bool | None = None) -> Array:
        """Call a layer on an array of its own library."""
        with self.running(f"calling it on shape {tuple(x.shape)}{'' if training else ' in evaluation'}"):
            return layer.run(x, training, grad)

    def train(self, rank: int | None = None, steps: int = 3, *, neutral: bool = True, **probes: Any) -> Layer:
        """A layer that has seen a few batches."""
        layer = self.layer(rank, neutral=neutral, **probes)
        for step in range(steps):
            self.forward(layer, self.x(rank, seed=100 + step))
        return layer

    @cached_property
    def deterministic(self) -> tuple[float, float]:
        """The largest difference between calls on equal input, in training and in evaluation."""
        x = self.x()
        found = []
        for training in (True, False):
            results = []
            for seed in range(3):
                layer = self.layer()
                self.library.seed(seed)  # whatever it draws while it runs shall differ
                results.append(self.forward(layer, x, training))
            gaps = [float(np.nanmax(np.abs(other - results[0]), initial=0.0)) for other in results[1:]]
            found.append(max(gaps))
        return found[0], found[1]

    @cached_property
    def state(self) -> tuple[str, ...]:
        """Which running statistics it keeps, once it has seen a batch."""
        if self.library.name == "jax" and self.subject.kind != "function":
            return ()
        layer = self.layer()
        self.forward(layer, self.x())
        return tuple(role for role in RUNNING if role in layer.slots())

    @cached_property
    def affine(self) -> tuple[str, ...]:
        """Which of weight and bias it has."""
        return tuple(role for role in ("weight", "bias") if role in self.subject.new(self._sensible_ranks[0]).slots())

    @cached_property
    def training_uses_state(self) -> float:
        """How much the training output changes when other batches came before."""
        if not self.state:
            return 0.0
        x = self.x()
        fresh, trained = self.layer(), self.layer()
        for step in range(3):
            self.forward(trained, self.x(seed=100 + step) * 3.0 + 7.0)
        return float(np.abs(self.forward(fresh, x) - self.forward(trained, x)).max())

    def pattern(self, rank: int | None = None, batch: int | None = None) -> Pattern | None:
        """What it averages over for inputs of this rank and batch size, measured; None where nothing regular is."""
        rank, batch = rank or self.rank, batch or self.geometry.batch
        if (rank, batch) not in self._patterns:
            self._patterns[rank, batch] = self._measure_pattern(rank, batch)
        return self._patterns[rank, batch]

    def _measure_pattern(self, rank: int, batch: int) -> Pattern | None:
        x = self.x(rank, batch)
        names, channel = self.geometry.axis_names(rank), self.geometry.channel_axis(rank)
        if self.forward(self.layer(rank), x).shape != x.shape:
            return None
        found = formulas.dependence(lambda values: self.forward(self.layer(rank), values), x)
        return formulas.match(found, formulas.all_patterns(x.shape, channel, names))

    @cached_property
    def output_dtypes(self) -> dict[str, str]:
        """For each dtype that goes in: which comes out, or what is raised."""
        found = {}
        for dtype in self.library.dtypes:
            try:
                y = self.run(self.layer_as(dtype), self.library.make(self.x(), dtype))
                found[dtype] = self.library.dtype(y)
            except TargetError as error:
                found[dtype] = f"raises {type(error.error).__name__}"
        return found

    def layer_as(self, dtype: str) -> Layer:
        """A fresh layer for inputs of this dtype: a module is converted, a function gets its arrays in it."""
        layer = self.layer()
        with self.running(f"converting it to {dtype}"):
            layer.convert(dtype)
        return layer

    def grouped_otherwise(self, rank: int) -> bool:
        """Whether it groups channels, but other ones than neighbours."""
        pattern = self.pattern(rank)
        return self.family == "group" and pattern is not None and pattern.strange_groups

    @cached_property
    def unit_weight(self) -> float:
        """The weight that changes nothing: 1, or 0 where the layer multiplies by 1 + weight."""
        if "weight" not in self.affine:
            return 1.0
        rank = self._sensible_ranks[0]
        layer = self.subject.new(rank)
        if layer.read("weight")["weight"].any():
            return 1.0
        return 0.0 if float(self.forward(layer, self.x(rank)).std()) > 0.1 else 1.0

    def scaled(self, plain: Values, weight: Values | None, bias: Values | None) -> Values | None:
        """plain * weight + bias, along the channels or over the last axes; None where the sizes fit neither."""
        axis = self.geometry.channel_axis(plain.ndim)
        for values, join in ((weight, np.multiply), (bias, np.add)):
            if values is None:
                continue
            trailing = plain.shape[plain.ndim - len(self.geometry.features) :]
            if len(trailing) > 1 and values.size == int(np.prod(trailing)):
                plain = join(plain, values.reshape(trailing))
            elif values.size in (1, plain.shape[axis]):
                plain = join(plain, values.reshape([-1 if a == axis else 1 for a in range(plain.ndim)]))
            else:
                return None
        return plain

    @cached_property
    def gradients(self) -> Measured:
        """The target's gradients, with the slopes of its forward pass."""
        return Measured(self)

    @cached_property
    def twin(self) -> str:
        """The layer of torch.nn that does the same."""
        return twin_of(self.family, self.resolved.claim.ranks or (self.rank,))

    @cached_property
    def formula(self) -> Formula | None:
        """The formula that it computes in training; None where the axes cannot be told."""
        x, pattern = self.x(), self.pattern()

        def forward(values: Values) -> Values:
            return self.forward(self.layer(), values)

        if forward(x).shape != x.shape:
            return None
        patterns = [pattern] if pattern is not None and pattern.count > 1 else []
        axes = formulas.fit_axes(forward, x, patterns) if patterns else None
        if axes is None:
            names, channel = self.geometry.axis_names(self.rank), self.geometry.channel_axis(self.rank)
            every = [p for p in formulas.all_patterns(x.shape, channel, names) if p.count > 1]
            axes = formulas.fit_axes(forward, x, every)
        if axes is None:
            if pattern is None or pattern.count == 1:
                return None
            axes = (pattern, pattern, self.family != "rms")
        return formulas.fit(forward, *axes, self.cast)

    def fit(self, **probes: Any) -> Formula:
        """The formula, on the same axes, with other arguments: ``eps=0.03``."""
        known = self.formula
        if known is None:
            raise ValueError("the axes are not known")
        axes = known.mean_over, known.var_over, known.centred
        return formulas.fit(lambda values: self.forward(self.layer(**probes), values), *axes, self.cast)

    @cached_property
    def update(self) -> Update | None:
        """How the running statistics are updated; None where there are none."""
        return measure_update(self) if self.state else None

    @cached_property
    def evaluation(self) -> Evaluation:
        """What evaluation does."""
        return measure_evaluation(self)

    @cached_property
    def convention_name(self) -> str:
        """The convention that applies: the one asked for, or Flax's or Keras' where the code follows it."""
        return self.options.convention or conventions.natural_convention(self)

    @property
    def convention(self) -> tuple[str, Convention]:
        """The convention that applies, with its name."""
        return self.convention_name, CONVENTIONS[self.convention_name]

    @cached_property
    def momentum(self) -> Update | None:
        """The update under another momentum than the default; None where it has no such argument."""
        return conventions.measure_momentum(self)

    def expected(self, rank: int | None = None, batch: int | None = None) -> list[Pattern]:
        """What its family should average over."""
        return expected_patterns(self.family, self.geometry, rank or self.rank, batch, self._open_axes)

    def as_expected(self, rank: int | None = None, batch: int | None = None) -> bool:
        """Whether the measured axes are those of its family."""
        pattern = self.pattern(rank, batch)
        return pattern is not None and any(pattern.same(expected) for expected in self.expected(rank, batch))

    @cached_property
    def _open_axes(self) -> bool:
        """Whether nothing says how many of the last axes are features."""
        return not self.subject.accepts("features") and not self.affine and self.subject.kind != "module"

    def _decide_family(self) -> tuple[str, str]:
        claim = self.resolved.claim
        if claim.family is not None:
            return claim.family, claim.reason
        self.family = "batch"
        for family in ("batch", "instance", "group", "layer"):
            self.family = family
            self._choose_layout_and_batch()
            if self.rank in self.resolved.ranks and self.as_expected():
                centred = self.formula is None or self.formula.centred
                self.__dict__.pop("formula", None)
                self._forget()
                return (family if centred else "rms"), "by what it averages over"
        self._forget()
        return "batch", "a guess: its axes are those of no family; say it with --as"

    def _forget(self) -> None:
        for name in ("ranks", "ranks_out_of_reach", "rank", "formula", "affine", "state", "unit_weight"):
            self.__dict__.pop(name, None)

    def _choose_layout_and_batch(self) -> None:
        """Where the input's layout or the batch size is open, take one at which the axes are as they should be."""
        self._forget()
        start = self.subject
        choices: list[Callable[[], Subject]] = [lambda: start]
        if len(start.geometry.features) == 1 and self.family != "rms":
            choices.append(lambda: start.with_geometry(last=not start.geometry.last))
        choices += [lambda b=b: start.with_geometry(batch=b) for b in (4, 2, 3)]  # type: ignore[misc]
        for choice in choices:
            self.subject = choice()
            self._patterns.clear()
            try:
                if self.as_expected():
                    return
            except TargetError:
                continue
        self.subject = start
        self._patterns.clear()
