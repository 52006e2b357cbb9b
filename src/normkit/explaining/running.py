"""Running statistics over training steps, beside torch.nn's, and what evaluation then makes of them."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.explaining.case import MAX_RANK, Case, case_of
from normkit.explaining.example import Array, example
from normkit.explaining.normalization import as_array, refuse_as_the_layer, statistics_of
from normkit.explaining.shown import Shown
from normkit.reference import normalize, unbiased, update_running
from normkit.spec import view

KINDS: Final = ("batch", "instance")
"""The norms that may keep running statistics."""


@dataclass(frozen=True)
class Step:
    """One training step; every array has one value a channel.

    Args:
        number: 1 for the first step.
        batch_mean: The mean of the batch.
        batch_var: Its biased variance, by which the batch is normalized.
        batch_var_unbiased: Its unbiased variance, which is stored.
        mean: The running mean after the step.
        var: The running variance after the step.
        var_biased: What it would be if the biased variance were stored, as Keras and many articles do.
        torch_mean: torch.nn's running mean.
        torch_var: torch.nn's running variance.
    """

    number: int
    batch_mean: Array
    batch_var: Array
    batch_var_unbiased: Array
    mean: Array
    var: Array
    var_biased: Array
    torch_mean: Array
    torch_var: Array


@dataclass(frozen=True)
class Evaluation:
    """The last batch, normalized by the running statistics; each array in its shape, channels as axis 1.

    Args:
        x: The batch.
        y: The result.
        y_biased: The result if the biased variance had been stored.
        torch_y: torch.nn's result.
    """

    x: Array
    y: Array
    y_biased: Array
    torch_y: Array


@dataclass(frozen=True)
class RunningStatistics(Shown):
    """The running statistics of one layer over some training steps.

    Args:
        case: Which normalization.
        momentum: The weight of each new batch; None: the plain average of all batches.
        steps: The steps.
        evaluation: What evaluation gives after the last one.
        eps: Added to the variance.
        same_array: Whether every step saw the same array.
    """

    case: Case
    momentum: float | None
    steps: Sequence[Step]
    evaluation: Evaluation
    eps: float = 1e-5
    same_array: bool = False

    @property
    def layer(self) -> str:
        """The layer of torch.nn that keeps these statistics."""
        if self.case.kind == "batch":
            return self.case.layer
        return self.case.layer.replace("affine=True", "track_running_stats=True")

    def difference(self) -> float:
        """Return the largest difference between the reference and torch.nn, of statistics and of the evaluation."""
        pairs = [(step.mean, step.torch_mean) for step in self.steps]
        pairs += [(step.var, step.torch_var) for step in self.steps]
        pairs.append((self.evaluation.y, self.evaluation.torch_y))
        return max(float(np.abs(ours - theirs).max()) for ours, theirs in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        steps = [{name: _plain(value) for name, value in asdict(step).items()} for step in self.steps]
        evaluation = {name: _plain(value) for name, value in asdict(self.evaluation).items()}
        return {
            "norm": self.case.kind,
            "layer": self.layer,
            "momentum": self.momentum,
            "eps": self.eps,
            "steps": steps,
            "evaluation": evaluation,
            "largest_difference_from_torch": self.difference(),
        }


def running_statistics(
    kind: str = "batch",
    x: Any = None,
    *,
    shape: Sequence[int] | None = None,
    steps: int = 10,
    momentum: float | None = 0.1,
    channels_last: bool = False,
) -> RunningStatistics:
    """Train a norm for some steps and note its running statistics, beside torch.nn's.

    Args:
        kind: "batch", or "instance" (with ``track_running_stats=True``).
        x: The batch of every step; None draws another one for each, from fixed seeds.
        shape: The shape of the batches that are drawn.
        steps: Training steps.
        momentum: The weight of the new batch (torch's meaning); None: the plain average of all batches.
        channels_last: Whether the channels are the last axis.
    Raises:
        UserError: the norm keeps no running statistics, an argument that cannot be used, or what the layer refuses.
    """
    if kind not in KINDS:
        raise UserError(
            f"{kind} norm keeps no running statistics: choose from {', '.join(KINDS)}{did_you_mean(kind, KINDS)}"
        )
    if steps < 1:
        raise UserError(f"`steps` must be 1 or more, not {steps}")
    if momentum is not None and not (math.isfinite(momentum) and 0 <= momentum <= 1):
        raise UserError(f"`momentum` must be between 0 and 1, the weight of the new batch; got {momentum:g}")
    if momentum is None and kind == "instance":
        raise UserError(
            "torch.nn's instance norm takes momentum=None as 0, and its statistics never move: name a `momentum`"
        )
    given = None if x is None else as_array(x)
    first = example(shape, channels_last=channels_last) if given is None else given
    case = case_of(kind, first.shape, channels_last=channels_last)
    refuse_as_the_layer(case, first)
    layer = _torch_layer(case, momentum)
    mean, var, var_biased = np.zeros(case.weight_shape), np.ones(case.weight_shape), np.ones(case.weight_shape)
    records: list[Step] = []
    batch = first
    for number in range(1, steps + 1):
        batch = first if given is not None else example(first.shape, channels_last=channels_last, seed=number - 1)
        layer(torch.from_numpy(np.ascontiguousarray(case.to_spec(batch))))
        batch_mean, biased, stored = _of_channels(case, batch)
        mean = update_running(mean, batch_mean, momentum, number)
        var = update_running(var, stored, momentum, number)
        var_biased = update_running(var_biased, biased, momentum, number)
        theirs = [buffer.numpy().copy() for buffer in (layer.running_mean, layer.running_var)]
        records.append(Step(number, batch_mean, biased, stored, mean, var, var_biased, *theirs))
    evaluation = _evaluate(case, batch, records[-1], layer)
    return RunningStatistics(case, momentum, records, evaluation, same_array=given is not None)


def _torch_layer(case: Case, momentum: float | None) -> Any:
    """Return torch.nn's layer for this array, in float64."""
    classes = {
        "batch": (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
        "instance": (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    }
    dimensions = max(1, len(case.shape) - 2)
    if len(case.shape) > MAX_RANK:
        raise UserError(f"torch.nn has no {case.kind} norm for {len(case.shape)} axes: give at most 5")
    # torch annotates instance norm's momentum as a float; None is the plain average in both families
    average: Any = momentum
    cls: Any = classes[case.kind][dimensions - 1]
    return cls(case.spec_shape[1], momentum=average, track_running_stats=True).double()


def _of_channels(case: Case, batch: Array) -> tuple[Array, Array, Array]:
    """Return the mean, the biased and the unbiased variance of each channel of a batch."""
    mean, var = statistics_of(case, batch)
    stored = unbiased(var, case.count)
    channels = case.weight_shape[0]
    of_channels = [statistic.reshape(-1, channels).mean(axis=0) for statistic in (mean, var, stored)]
    return of_channels[0], of_channels[1], of_channels[2]


def by_running(case: Case, mean: Array, var: Array) -> tuple[Array, Array]:
    """Return running statistics, one a channel, as the statistics of each set of cells."""
    repeats = view(case.norm, case.spec_shape).shape[0] * view(case.norm, case.spec_shape).shape[2] // len(mean)
    return np.tile(mean, repeats), np.tile(var, repeats)


def _evaluate(case: Case, batch: Array, last: Step, layer: Any) -> Evaluation:
    x = np.ascontiguousarray(case.to_spec(batch))
    y, y_biased = (
        normalize(x, case.norm, statistics=by_running(case, last.mean, var)).y for var in (last.var, last.var_biased)
    )
    return Evaluation(x, y, y_biased, layer.eval()(torch.from_numpy(x)).detach().numpy())


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
