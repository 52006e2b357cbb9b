"""Verification: it passes for right layers, and each planted fault turns it red."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor, nn

import normkit
from normkit import train
from normkit.train import TrainConfig, Verdict, model, verify


def verdict_of(small_data: Path, out: Path, norm: str) -> Verdict:
    config = TrainConfig(data=str(small_data), norms=[norm], epochs=1, batch_size=32, verify=True)
    (verdict,) = train.run(config, out).verdicts
    return verdict


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "instance"])
def test_right_layers_pass(small_data: Path, tmp_path: Path, norm: str) -> None:
    with normkit.use_backend("numba"):  # so few images would be handed to torch's own operations
        verdict = verdict_of(small_data, tmp_path / "run", norm)
    assert verdict.passed
    assert verdict.steps == 6
    assert verdict.gradient > 0  # two implementations round differently; zero would mean one compared with itself
    rows = (tmp_path / "run" / "verify.csv").read_text().splitlines()
    assert len(rows) == 1 + verdict.steps
    assert rows[0].startswith("norm,epoch,step,loss,gradient,running,drift_loss")
    assert 0 <= verdict.twin_test_accuracy <= 1


def test_without_a_norm_there_is_nothing_to_verify(small_data: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=str(small_data), norms=["none"], epochs=1, batch_size=64, verify=True)
    result = train.run(config, tmp_path / "run")
    assert result.verdicts == []
    assert result.passed


class WrongEps(nn.BatchNorm1d):
    """An eps of another framework."""

    def __init__(self, features: int) -> None:
        super().__init__(features, eps=1e-3)


class WrongMomentum(nn.BatchNorm1d):
    """The momentum of another framework: the weight of the old value."""

    def __init__(self, features: int) -> None:
        super().__init__(features, momentum=0.9)


class BiasedRunningVariance(nn.BatchNorm1d):
    """Stores the variance that it normalizes with."""

    def forward(self, input: Tensor) -> Tensor:
        assert self.running_var is not None
        before = self.running_var.clone()
        result = super().forward(input)
        if self.training:
            self.running_var = before.lerp(input.detach().var(0, correction=0), 0.1)
        return result


class ConstantStatistics(nn.BatchNorm1d):
    """Right values, but the gradient takes mean and variance for constants."""

    def forward(self, input: Tensor) -> Tensor:
        super().forward(input)
        mean, var = input.mean(0).detach(), input.var(0, correction=0).detach()
        return (input - mean) * (var + self.eps).rsqrt() * self.weight + self.bias


@pytest.mark.parametrize(
    ("fault", "number"),
    [
        (WrongEps, "loss"),
        (WrongMomentum, "running"),
        (BiasedRunningVariance, "running"),
        (ConstantStatistics, "gradient"),
    ],
)
def test_a_planted_fault_fails(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[nn.BatchNorm1d], number: str
) -> None:
    faulty = SimpleNamespace(BatchNorm1d=fault, BatchNorm2d=normkit.BatchNorm2d)
    real = model.namespace
    monkeypatch.setattr(model, "namespace", lambda impl: faulty if impl == "normkit" else real(impl))
    verdict = verdict_of(small_data, tmp_path / "run", "batch")
    assert not verdict.passed
    tolerance = {
        "loss": verify.LOSS_TOLERANCE,
        "gradient": verify.GRADIENT_TOLERANCE,
        "running": verify.RUNNING_TOLERANCE,
    }
    assert getattr(verdict, number) > 10 * tolerance[number]


def test_a_difference_that_is_not_a_number_fails(small_data: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=str(small_data), norms=["instance"], epochs=2, batch_size=64, lr=1e38, verify=True)
    (verdict,) = train.run(config, tmp_path / "run").verdicts
    assert not verdict.passed


def test_loss_differences_are_measured_in_losses_of_at_least_one() -> None:
    assert verify._loss_difference(4.0, 2.0) == 1.0
    assert verify._loss_difference(0.002, 0.001) == pytest.approx(0.001)
