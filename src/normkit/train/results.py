"""The results of a run: plain records that go into checkpoints, tables, JSON and pictures."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from statistics import median
from typing import Any, Final, get_origin

from normkit.train.quantities import Difference


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.csv``; ``impl`` is empty where the run has one implementation alone.

    ``train_loss`` and ``train_accuracy`` are averages over the epoch's steps, as the published experiment prints them;
    the test is done after the epoch, in evaluation mode. ``seconds`` is what the training steps take, at the speed of
    ``images_per_second``, from which the first step of a process is left out: it loads and compiles.
    """

    norm: str
    impl: str
    epoch: int
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float
    images_per_second: float


@dataclass(frozen=True)
class Activation:
    """The histogram of one activation in one training step."""

    place: str
    side: str
    """``"before"`` or ``"after"`` the normalization."""
    epoch: int
    step: int
    mean: float
    std: float
    low: float
    high: float
    counts: list[int]


@dataclass(frozen=True, kw_only=True)
class StepDifference:
    """One line of ``verify.csv``: the differences from torch.nn in one step; see ``verify.py``.

    A quantity is None where the layers have none; ``evaluation`` is measured after the last step of an epoch. Beside
    each stands the layer that it is told of.
    """

    norm: str
    impl: str
    epoch: int
    step: int
    output: float | None = None
    output_layer: str = ""
    running_mean: float | None = None
    running_mean_layer: str = ""
    running_var: float | None = None
    running_var_layer: str = ""
    gradient: float | None = None
    gradient_layer: str = ""
    evaluation: float | None = None
    evaluation_layer: str = ""
    drift_loss: float
    drift_gradient: float
    drift_running: float
    drift_weight: float

    def of(self, quantity: str) -> Difference | None:
        """Return one of the quantities by its name."""
        value = getattr(self, quantity)
        return None if value is None else Difference(value, getattr(self, f"{quantity}_layer"))


@dataclass(frozen=True)
class QuantityVerdict:
    """What became of one quantity over all steps of a training.

    Args:
        quantity: Its name, one of ``QUANTITIES``.
        tolerance: What rounding may make of it.
        first_step: The first step beyond the tolerance; None where there was none.
        largest: The largest difference.
        layer: The layer where it left the tolerance first, or else where it was largest.
    """

    quantity: str
    tolerance: float
    first_step: int | None
    largest: float
    layer: str


@dataclass(frozen=True)
class Verdict:
    """A comparison with torch.nn over all steps of one training, and whether all of it is within the tolerances."""

    norm: str
    impl: str
    target: str
    steps: int
    passed: bool
    quantities: list[QuantityVerdict]
    drift_loss: float
    drift_gradient: float
    drift_running: float
    drift_weight: float
    test_accuracy: float
    twin_test_accuracy: float

    @property
    def first_beyond(self) -> list[QuantityVerdict]:
        """The quantities that left their tolerance before all others, in the same step."""
        beyond = [found for found in self.quantities if found.first_step is not None]
        first = min((found.first_step or 0 for found in beyond), default=None)
        return [found for found in beyond if found.first_step == first]


CHANCE: Final = 0.15
"""The accuracy up to which a training has learned nothing of ten classes."""


@dataclass
class NormResult:
    """One contender's training so far.

    Args:
        norm: Its norm.
        parameters: The number of weights in its network.
        impl: A short name of its implementation; empty where the run has one alone.
        target: Somebody's own layer: where it was found; empty for the layers of a package.
    """

    norm: str
    parameters: int
    epochs: list[EpochMetrics] = field(default_factory=list)
    early: list[Activation] = field(default_factory=list)
    late: list[Activation] = field(default_factory=list)
    differences: list[StepDifference] = field(default_factory=list)
    twin_test_accuracy: float | None = None
    """Where it is compared: the accuracy of the twin that trained with torch.nn's layers on its own."""
    impl: str = ""
    target: str = ""
    lost_on_save: list[str] = field(default_factory=list)
    """What an own layer did not get back from its checkpoint when the run was resumed."""
    without_affine: list[str] = field(default_factory=list)
    """What an own layer does not have of weight and bias."""

    @property
    def label(self) -> str:
        """Its name in file names and pictures."""
        return label_of(self.norm, self.impl)

    @property
    def learned_nothing(self) -> bool:
        """Whether it is where it began: at chance on its own training images."""
        return self.epochs[-1].train_accuracy <= CHANCE

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the epochs."""
        return median(row.seconds for row in self.epochs)


def restored(cls: type[EpochMetrics | Activation | StepDifference], values: Mapping[str, Any]) -> Any:
    """Return a record of a checkpoint.

    Raises:
        TypeError: it has other fields, or values of other types.
    """
    found = cls(**values)
    for one in fields(cls):
        value, expected = getattr(found, one.name), list if get_origin(one.type) is list else one.type
        if not isinstance(value, expected):  # type: ignore[arg-type]
            raise TypeError(f"{one.name} is {value!r}")
    return found


def label_of(norm: str, impl: str) -> str:
    """Name a contender."""
    return f"{norm}-{impl}" if impl else norm


def record(row: EpochMetrics | StepDifference | Verdict) -> dict[str, Any]:
    """Return the fields of a record; without the implementation where the run has one alone."""
    return {name: value for name, value in asdict(row).items() if name != "impl" or value}
