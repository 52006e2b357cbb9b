"""The results of a run: plain records that go into checkpoints, tables, JSON and pictures."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from normkit.train.config import TrainConfig


@dataclass(frozen=True)
class EpochMetrics:
    """One line of ``metrics.csv``.

    ``train_loss`` and ``train_accuracy`` are averages over the epoch's steps, as the published experiment prints them;
    the test is done after the epoch, in evaluation mode. ``seconds`` is what the training steps take, at the speed of
    ``images_per_second``, from which the first step of a process is left out: it loads and compiles.
    """

    norm: str
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


@dataclass(frozen=True)
class StepDifference:
    """One line of ``verify.csv``: the differences between normkit and torch.nn in one step; see ``verify.py``."""

    norm: str
    epoch: int
    step: int
    loss: float
    gradient: float
    running: float
    drift_loss: float
    drift_gradient: float
    drift_running: float
    drift_weight: float


@dataclass(frozen=True)
class Verdict:
    """The largest differences over all steps of one norm, and whether they are within the tolerances."""

    norm: str
    steps: int
    loss: float
    gradient: float
    running: float
    drift_loss: float
    drift_gradient: float
    drift_running: float
    drift_weight: float
    test_accuracy: float
    twin_test_accuracy: float
    passed: bool


@dataclass
class NormResult:
    """One norm's training so far."""

    norm: str
    parameters: int
    epochs: list[EpochMetrics] = field(default_factory=list)
    early: list[Activation] = field(default_factory=list)
    late: list[Activation] = field(default_factory=list)
    differences: list[StepDifference] = field(default_factory=list)
    twin_test_accuracy: float | None = None
    """With ``verify``: the accuracy of the twin that trained with torch.nn's layers on its own."""

    @property
    def seconds_per_epoch(self) -> float:
        """The median over the epochs."""
        return median(row.seconds for row in self.epochs)


@dataclass(frozen=True)
class RunResult:
    """A run, finished or not: its folder, its options and one result a norm, for norms with an epoch done."""

    folder: Path
    config: TrainConfig
    norms: list[NormResult]
    verdicts: list[Verdict]
    files: list[str]

    @property
    def passed(self) -> bool:
        """True where every verification was within its tolerances, or none was asked for."""
        return all(verdict.passed for verdict in self.verdicts)

    def to_json(self) -> dict[str, Any]:
        """Return the object that ``metrics.json`` holds; numbers that are not finite are null."""
        summary = []
        for result in self.norms:
            last = result.epochs[-1]
            summary.append(
                {
                    "norm": result.norm,
                    "epochs": last.epoch,
                    "parameters": result.parameters,
                    "train_accuracy": last.train_accuracy,
                    "test_accuracy": last.test_accuracy,
                    "seconds_per_epoch": result.seconds_per_epoch,
                    "final_loss": last.train_loss,
                }
            )
        tree = {
            "folder": str(self.folder),
            "config": self.config.to_json(),
            "results": summary,
            "verify": [asdict(verdict) for verdict in self.verdicts],
            "epochs": [asdict(row) for result in self.norms for row in result.epochs],
            "files": self.files,
        }
        finite = _finite(tree)
        assert isinstance(finite, dict)
        return finite


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
