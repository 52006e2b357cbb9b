"""torch.nn's own layers and functions, and normkit's on every back end: no findings, notes aside."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch.nn import functional as F

import normkit
from normkit.checking.report import Report
from normkit.checking.run import examine

Array = npt.NDArray[Any]

TORCH = [
    torch.nn.BatchNorm1d,
    torch.nn.BatchNorm2d,
    torch.nn.BatchNorm3d,
    torch.nn.SyncBatchNorm,
    torch.nn.LazyBatchNorm2d,
    torch.nn.LayerNorm,
    torch.nn.GroupNorm,
    torch.nn.InstanceNorm1d,
    torch.nn.InstanceNorm2d,
    torch.nn.InstanceNorm3d,
    torch.nn.RMSNorm,
    F.batch_norm,
    F.layer_norm,
    F.group_norm,
    F.instance_norm,
    F.rms_norm,
    torch.nn.BatchNorm2d(9, eps=1e-3, momentum=0.02),
    torch.nn.BatchNorm2d(6, momentum=None),
    torch.nn.BatchNorm1d(6, affine=False),
    torch.nn.BatchNorm2d(6, track_running_stats=False),
    torch.nn.LayerNorm((4, 5), eps=1e-3),
    torch.nn.LayerNorm(8, bias=False),
    torch.nn.GroupNorm(3, 9),
    torch.nn.GroupNorm(1, 8, affine=False),
    torch.nn.InstanceNorm2d(6, affine=True, track_running_stats=True),
    torch.nn.RMSNorm((4, 5), eps=1e-4),
]
LAYERS = [name for name in normkit.__all__ if "Norm" in name and "Act" not in name]
FUNCTIONS = ["batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"]


def beyond_notes(report: Report) -> list[tuple[str, str, str, str]]:
    return [(f.severity, f.code, f.message, f.evidence) for f in report.findings if f.severity != "note"]


@pytest.mark.parametrize("target", TORCH, ids=lambda target: getattr(target, "__name__", repr(target)))
def test_torch(target: Any) -> None:
    report = examine(target)
    assert beyond_notes(report) == []
    assert (report.verdict, report.failed, report.blocked) == ("equivalent", {}, {})


@pytest.mark.parametrize("backend", ["auto", "eager", pytest.param("aten", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", LAYERS + FUNCTIONS)
def test_normkit(name: str, backend: str) -> None:
    target = getattr(normkit, name, None) or getattr(normkit.functional, name)
    with normkit.use_backend(backend):
        assert beyond_notes(examine(target)) == []


@pytest.mark.parametrize("backend", ["auto", "numba"])
def test_a_norm_with_an_activation_differs_by_that_alone(backend: str) -> None:
    with normkit.use_backend(backend):
        assert beyond_notes(examine(normkit.BatchNormAct2d(6, apply_act=False))) == []
        (found,) = beyond_notes(examine(normkit.BatchNormAct2d(6)))
    assert found[1:3] == ("formula-wrong", "sets what is negative after normalizing to zero, as ReLU does")


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS + FUNCTIONS)
def test_normkit_compiled(name: str) -> None:
    target = getattr(normkit, name, None) or getattr(normkit.functional, name)
    with normkit.use_backend("numba"):
        assert beyond_notes(examine(target)) == []


def batch_norm(
    x: Array,
    running_mean: Array,
    running_var: Array,
    weight: Array,
    bias: Array,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Array:
    return normkit.functional.batch_norm(
        np.asarray(x), running_mean, running_var, weight, bias, training, momentum, eps
    )


def layer_norm(x: Array, normalized_shape: Any, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    return normkit.functional.layer_norm(np.asarray(x), normalized_shape, weight, bias, eps)


def group_norm(x: Array, num_groups: int, weight: Array, bias: Array, eps: float = 1e-5) -> Array:
    return normkit.functional.group_norm(np.asarray(x), num_groups, weight, bias, eps)


def rms_norm(x: Array, normalized_shape: Any, weight: Array, eps: float | None = None) -> Array:
    return normkit.functional.rms_norm(np.asarray(x), normalized_shape, weight, eps)


@pytest.mark.parametrize("target", [batch_norm, layer_norm, group_norm, rms_norm], ids=lambda target: target.__name__)
def test_normkit_on_numpy_arrays(target: Any) -> None:
    report = examine(target)
    assert report.identity.library == "numpy"
    assert beyond_notes(report) == []
