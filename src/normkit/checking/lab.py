"""The laboratory: a mounted target, and every measurement that the checks share, each made once."""

from functools import cached_property
from typing import Any

import numpy as np

from normkit.checking import conventions
from normkit.checking import formula as formulas
from normkit.checking.arrays import Values
from normkit.checking.errors import TargetError
from normkit.checking.families import CONVENTIONS, Convention, twin_of
from normkit.checking.formula import Formula
from normkit.checking.gradients import Measured
from normkit.checking.layer import Layer
from normkit.checking.options import Options
from normkit.checking.resolve import Resolved
from normkit.checking.rig import Rig
from normkit.checking.running import Evaluation, Update, measure_evaluation, measure_update
from normkit.checking.subject import Subject

RUNNING = ("running_mean", "running_var")


class Lab(Rig):
    """A mounted target with its measurements.

    Args:
        resolved: What was found out about the target.
        subject: How to build and call it.
        family: The family it is held against.
        family_reason: How that was decided.
        options: What the user fixed.
    """

    def __init__(self, resolved: Resolved, subject: Subject, family: str, family_reason: str, options: Options) -> None:
        super().__init__(resolved, subject, family)
        self.family_reason = family_reason
        self.options = options
        self.import_changes: tuple[str, ...] = ()
        self.import_output = ""

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
        layer = self.layer()
        self.forward(layer, self.x())
        return tuple(role for role in RUNNING if role in layer.slots())

    @cached_property
    def training_uses_state(self) -> float:
        """How much the training output changes when the running statistics do."""
        if not self.state:
            return 0.0
        x = self.x()
        fresh, other = self.layer(), self.layer()
        for layer in (fresh, other):
            self.forward(layer, self.x(seed=100))  # some keep nothing before the first batch
        held = other.read(*self.state)
        other.write(**{role: values * 2.0 + 3.0 for role, values in held.items()})
        return float(np.abs(self.forward(fresh, x) - self.forward(other, x)).max())

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
