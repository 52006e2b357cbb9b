"""All measurements of a target that the checks share, each made once; and the choice of what they are made on."""

import dataclasses
from functools import cached_property

import numpy as np

from normkit.checking.families import CONVENTIONS, reference_layer
from normkit.checking.measure.calls import running
from normkit.checking.measure.formula import Formula, measure_formula
from normkit.checking.measure.gradients import Backward, measure_backward
from normkit.checking.measure.probe import Probe
from normkit.checking.measure.running_stats import Evaluation, Update, measure_evaluation, measure_update
from normkit.checking.measure.settle import Settled, settle
from normkit.checking.options import Options
from normkit.checking.target.adapter import Adapter
from normkit.checking.target.errors import TargetError
from normkit.checking.target.load import ImportEffects
from normkit.checking.target.resolve import Candidate
from normkit.checking.target.state import AFFINE, RUNNING
from normkit.conventions import Convention

TEST_MOMENTUM = 0.3
"""A momentum that tells its two meanings apart."""


class Measurements(Probe):
    """A probe that keeps what it measures.

    Args:
        settled: What was found out about the target.
        options: What the user fixed.
        import_effects: What importing the target did.
    """

    def __init__(self, settled: Settled, options: Options, import_effects: ImportEffects) -> None:
        super().__init__(settled.resolved, settled.builder, settled.family)
        self.settled = settled
        self.undoes = settled.undoes
        self.family_reason = settled.reason
        self.options = options
        self.import_effects = import_effects

    @cached_property
    def reference_layer(self) -> str:
        """The layer of torch.nn that does the same."""
        return reference_layer(self.family, self.resolved.claim.ranks or (self.rank,))

    @cached_property
    def deterministic(self) -> tuple[float, float]:
        """The largest difference between calls on equal input, in training and in evaluation."""
        x = self.x()
        found = []
        for training in (True, False):
            results = []
            for seed in range(3):
                layer = self.layer()
                self.forward(layer, x)  # some draw their parameters in the first call
                self.library.seed(seed)  # whatever it draws while it runs shall differ
                results.append(self.forward(layer, x, training=training))
            gaps = [float(np.nanmax(np.abs(other - results[0]), initial=0.0)) for other in results[1:]]
            found.append(max(gaps))
        return found[0], found[1]

    @cached_property
    def output_dtypes(self) -> dict[str, str]:
        """The dtype of the output for each dtype of the input, or what is raised."""
        found = {}
        for dtype in self.library.dtypes:
            try:
                y = self.run(self.layer_as(dtype), self.library.make(self.x(), dtype))
                found[dtype] = self.library.dtype(y)
            except TargetError as error:
                found[dtype] = f"raises {type(error.error).__name__}"
        return found

    def layer_as(self, dtype: str) -> Adapter:
        """Build a layer for inputs of this dtype: a module is converted, a function gets its arrays in it."""
        layer = self.layer()
        with running(f"converting it to {dtype}"):
            layer.convert(dtype)
        return layer

    @cached_property
    def formula(self) -> Formula | None:
        """The formula that it computes in training; None where the axes cannot be measured."""
        return measure_formula(self)

    @cached_property
    def backward(self) -> Backward:
        """The target's gradients, with the slopes of its forward pass."""
        return measure_backward(self)

    def weighted(self, weight: float) -> Adapter:
        """Build a layer whose weight has this value everywhere."""
        layer = self.layer()
        layer.write(weight=np.full(1, weight))
        return layer

    @cached_property
    def wrapper(self) -> str | None:
        """The class of the object that a result comes in, where it may have a backward pass of its own."""
        layer = self.layer()
        self.forward(layer, self.x())
        kind = layer.result.wrapper if layer.result else None
        return None if kind is None or dataclasses.is_dataclass(kind) else f"a {kind.__name__}"

    @cached_property
    def by_caller(self) -> bool:
        """Whether the caller keeps weight and bias and gives them in each call."""
        layer = self.layer(neutral=False)
        return any(slot.owner is layer.given for role, slot in layer.slots().items() if role in AFFINE)

    @property
    def has_evaluation(self) -> bool:
        """Whether it has an evaluation mode: one was found, or something is there that by its name switches to it."""
        return self.settled.evaluates or bool(self.layer().mode)

    # Running statistics

    @cached_property
    def state(self) -> tuple[str, ...]:
        """The running statistics that it keeps, once it has seen a batch."""
        layer = self.layer()
        self.forward(layer, self.x())
        slots = layer.slots()
        return tuple(role for role in RUNNING if role in slots)

    @cached_property
    def training_uses_state(self) -> float:
        """The largest change of the training output with what was seen before, or with the running statistics."""
        again = self.layer()
        x = self.x()
        outputs = [self.forward(again, values) for values in (x, self.x(seed=100) * 3.0 + 2.0, x, x)]
        remembered = float(np.abs(outputs[3] - outputs[0]).max())
        if not self.state or remembered > 1e-3:
            return remembered
        x = self.x()
        fresh, other = self.layer(), self.layer()
        for layer in (fresh, other):
            self.forward(layer, self.x(seed=100))  # some keep nothing before the first batch
        held = other.read(*self.state)
        other.write(**{role: values * 2.0 + 3.0 for role, values in held.items()})
        return float(np.abs(self.forward(fresh, x) - self.forward(other, x)).max())

    @cached_property
    def update(self) -> Update | None:
        """The update of the running statistics; None where there are none."""
        return measure_update(self) if self.state and self.family != "other" else None

    @property
    def unchanged_stats(self) -> tuple[str, ...]:
        """The running statistics that training leaves at their values."""
        return tuple(role for role in self.state if self.update is not None and role not in self.update.updated)

    @cached_property
    def evaluation(self) -> Evaluation:
        """The measured behaviour in evaluation."""
        return measure_evaluation(self, self.formula)

    # Momentum, and whose convention it follows

    @cached_property
    def update_with_test_momentum(self) -> Update | None:
        """The update under another momentum than the default; None where it has no such argument."""
        if self.builder.is_instance or not self.builder.accepts("momentum") or not self.state:
            return None
        try:
            return measure_update(self, momentum=TEST_MOMENTUM)
        except TargetError:
            return None

    @property
    def momentum_weighs_old(self) -> bool | None:
        """Whether momentum is the weight of the old value; None where that cannot be measured."""
        update = self.update_with_test_momentum
        if update is None or update.mean is None:
            return None
        if abs(update.mean[1] - TEST_MOMENTUM) < 0.01:
            return False
        return True if abs(update.mean[1] - (1 - TEST_MOMENTUM)) < 0.01 else None

    @property
    def momentum_ignored(self) -> bool:
        """Whether another momentum changes nothing."""
        other, update = self.update_with_test_momentum, self.update
        if other is None or update is None or other.mean is None or update.mean is None:
            return False
        return bool(np.allclose(other.mean, update.mean, atol=1e-4)) and self.momentum_weighs_old is None

    @cached_property
    def convention_name(self) -> str:
        """The convention that applies: the one asked for, or Flax's or Keras' where the code follows it."""
        return self.options.convention or self._natural_convention()

    @property
    def convention(self) -> Convention:
        """The convention that applies."""
        return CONVENTIONS[self.convention_name]

    def _natural_convention(self) -> str:
        """Flax or Keras where the code does as they do: momentum weighs the old value, the variance is biased."""
        update = self.update
        if update is None or update.mean is None or update.var is None or update.unbiased:
            return "torch"
        declared = self.builder.declared("momentum")
        if not self.momentum_weighs_old or (isinstance(declared, float) and declared <= 0.5):
            return "torch"
        eps = self.formula.eps if self.formula else 0.0
        return "keras" if abs(eps - 1e-3) < 1e-4 else "flax"


def measure(candidates: list[Candidate], options: Options, import_effects: ImportEffects) -> Measurements:
    """Choose the family and the way to call a target that make sense, and open its measurements.

    Args:
        candidates: The ways to build and call it.
        options: What the user fixed.
        import_effects: What importing it did.
    """
    settled = settle(candidates, options)
    measurements = Measurements(settled, options, import_effects)
    if settled.builder.momentum_required and measurements.momentum_weighs_old:
        builder = dataclasses.replace(settled.builder, momentum=0.9)  # the usual value of that meaning
        measurements = Measurements(dataclasses.replace(settled, builder=builder), options, import_effects)
    return measurements
