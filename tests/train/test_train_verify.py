"""Verification: it passes for right layers, and each planted fault turns it red."""

import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from torch import Tensor, nn

import normkit
from normkit import train
from normkit.train import TrainConfig, Verdict, model
from normkit.train.quantities import QUANTITIES, Difference


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
    assert largest(verdict, "gradient") > 0  # two round differently; zero would mean one compared with itself
    rows = (tmp_path / "run" / "verify.csv").read_text().splitlines()
    assert len(rows) == 1 + verdict.steps
    assert rows[0].startswith("norm,epoch,step,output,output_layer,running_mean,running_mean_layer,running_var,")
    assert [row.split(",")[11] != "" for row in rows[1:]] == [False] * 5 + [True]  # evaluation: once an epoch
    assert 0 <= verdict.twin_test_accuracy <= 1


def largest(verdict: Verdict, quantity: str) -> float:
    (found,) = [found for found in verdict.quantities if found.quantity == quantity]
    return found.largest


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
    ("fault", "quantity"),
    [
        (WrongEps, "output"),
        (WrongMomentum, "running_mean"),
        (BiasedRunningVariance, "running_var"),
        (ConstantStatistics, "gradient"),
    ],
)
def test_a_planted_fault_fails(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[nn.BatchNorm1d], quantity: str
) -> None:
    faulty = SimpleNamespace(BatchNorm1d=fault, BatchNorm2d=normkit.BatchNorm2d)
    real = model.namespace
    monkeypatch.setattr(model, "namespace", lambda impl: faulty if impl == "normkit" else real(impl))
    verdict = verdict_of(small_data, tmp_path / "run", "batch")
    assert not verdict.passed
    (found,) = [found for found in verdict.quantities if found.quantity == quantity]
    assert found.first_step == 1
    assert found.largest > 10 * found.tolerance
    assert found.layer == ("norm4" if quantity == "gradient" else "norm3")  # gradients go back, so the last is told


def test_a_difference_that_is_not_a_number_fails(small_data: Path, tmp_path: Path) -> None:
    config = TrainConfig(data=str(small_data), norms=["instance"], epochs=2, batch_size=64, lr=1e38, verify=True)
    (verdict,) = train.run(config, tmp_path / "run").verdicts
    assert not verdict.passed


def test_a_difference_is_told_of_the_layer_where_it_begins() -> None:
    forward, backward = QUANTITIES[0], QUANTITIES[3]
    assert forward.largest({"norm1": 1e-7, "norm2": 1e-2, "norm3": 5e-2}) == Difference(5e-2, "norm2")
    assert backward.largest({"norm1": 5e-2, "norm2": 1e-2, "norm3": 1e-7}) == Difference(5e-2, "norm2")
    assert forward.largest({"norm1": 1e-7, "norm2": 2e-7}) == Difference(2e-7, "norm2")
    assert forward.largest({}) is None
    not_a_number = forward.largest({"norm1": 1e-7, "norm2": math.nan})
    assert not_a_number is not None
    assert math.isnan(not_a_number.value)
    assert not_a_number.layer == "norm2"
