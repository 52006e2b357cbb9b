"""Ten training steps beside torch.nn."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from normkit.errors import UserError
from normkit.explaining import render, running_statistics
from normkit.renderable import text_of


@pytest.mark.parametrize("momentum", [0.1, 0.9, 0.0, 1.0, None])
@pytest.mark.parametrize(("shape", "channels_last"), [((2, 4, 2, 2), False), ((3, 5, 4), True), ((6, 3), False)])
def test_batch_norm_is_torchs(shape: Any, channels_last: bool, momentum: float | None) -> None:
    seen = running_statistics("batch", shape=shape, momentum=momentum, channels_last=channels_last)
    assert len(seen.steps) == 10
    assert seen.difference() < 1e-12
    for step in seen.steps:
        np.testing.assert_allclose(step.batch_var_unbiased, step.batch_var * seen.case.count / (seen.case.count - 1))


def test_instance_norm_is_torchs() -> None:
    assert running_statistics("instance", shape=(3, 4, 5), momentum=0.3).difference() < 1e-12


def test_an_array_is_the_batch_of_every_step() -> None:
    x = np.random.default_rng(0).normal(3, 2, size=(16, 2))
    layer = nn.BatchNorm1d(2).double()
    for _ in range(4):
        layer(torch.from_numpy(x))
    assert layer.running_mean is not None
    seen = running_statistics(x=torch.from_numpy(x), steps=4)
    np.testing.assert_allclose(seen.steps[-1].mean, layer.running_mean.numpy())
    np.testing.assert_allclose(seen.evaluation.y, layer.eval()(torch.from_numpy(x)).detach().numpy())


def test_the_biased_variance_gives_another_evaluation() -> None:
    seen = running_statistics(shape=(2, 3), steps=5)
    assert np.abs(seen.evaluation.y - seen.evaluation.y_biased).max() > 0.01
    ratio = seen.steps[-1].var - 0.9**5
    np.testing.assert_allclose(ratio, 2 * (seen.steps[-1].var_biased - 0.9**5))  # n / (n - 1) = 2


def test_two_numbers_that_are_the_same_look_the_same() -> None:
    text = text_of(render(running_statistics("instance")))
    assert "torch.nn.InstanceNorm2d(4, track_running_stats=True)" in text
    assert "each channel of a sample has n = 4 values" in text
    rows = [line.split() for line in text.splitlines() if line[:1].isdigit() and len(line.split()) >= 4]
    assert len(rows) == 20
    assert all(row[2] == row[3] for row in rows)


def test_the_same_array_in_every_step_is_said() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    assert "Every step sees the same array." in text_of(render(running_statistics(x=x, steps=2)))
    assert "Every step" not in text_of(render(running_statistics(steps=2)))


def test_generated_batches_differ_and_are_the_same_in_every_run() -> None:
    one, two = running_statistics(steps=3), running_statistics(steps=3)
    assert one.steps[0].batch_mean[0] != one.steps[1].batch_mean[0]
    np.testing.assert_array_equal(one.steps[2].mean, two.steps[2].mean)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "layer"}, "keeps no running statistics: choose from batch, instance"),
        ({"steps": 0}, "1 or more"),
        ({"momentum": 1.5}, "between 0 and 1"),
        ({"momentum": float("nan")}, "between 0 and 1"),
        ({"kind": "instance", "momentum": None}, "takes momentum=None as 0"),
        ({"shape": (1, 4)}, "more than 1 value per channel"),
        ({"shape": (2, 2, 2, 2, 2, 2)}, "no batch norm for 6 axes"),
    ],
)
def test_what_cannot_be_is_refused(arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        running_statistics(**arguments)
