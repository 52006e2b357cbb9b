"""Normalization by given statistics: the gradient of x is dy · weight · rstd, whatever x and the given mean are."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as TF

import normkit
from normkit import functional as F
from tests.cases import TOLERANCE, channels_last

BACKENDS = ("auto", "numba", "aten", "eager")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
# runs, columns (folded, and with a tail), one value a channel, and channels last
INPUTS = [((4, 3, 5, 7), False), ((3, 19, 2, 2), False), ((70, 6), False), ((4, 37), False), ((4, 19, 3, 5), True)]
OTHER_DTYPES = (torch.float64, torch.bfloat16)
BAD = (torch.nan, torch.inf, -torch.inf, "huge")


def spoil(target: Tensor, index: tuple[int, ...], bad: Any) -> None:
    """Put a bad value into a tensor."""
    target[index] = torch.finfo(target.dtype).max if bad == "huge" else bad


@every_backend
@pytest.mark.parametrize("kind", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("where", ["x", "mean"])
@pytest.mark.parametrize("dtype", [torch.float32, *(pytest.param(t, marks=pytest.mark.slow) for t in OTHER_DTYPES)])
def test_dx_does_not_depend_on_x(kind: str, where: str, dtype: torch.dtype, backend: str) -> None:
    for shape, last in INPUTS:
        if kind == "instance_norm" and len(shape) == 2:
            continue
        x, dy = torch.randn(shape).to(dtype), torch.randn(shape).to(dtype)
        x, dy = (channels_last(x), channels_last(dy)) if last else (x, dy)
        mean, var, weight = (torch.rand(shape[1]).to(dtype) + 0.5 for _ in range(3))
        expected = dy.double() * (weight.double() / (var.double() + 1e-5).sqrt()).view(1, -1, *[1] * (len(shape) - 2))
        for bad in BAD:
            bad_x, bad_mean = x.clone(), mean.clone()
            if where == "x":
                for sample in (0, 2):  # in the first elements and in the last ones, a tail
                    spoil(bad_x, (sample, shape[1] - 1, *[-sample // 2] * (len(shape) - 2)), bad)
            else:
                spoil(bad_mean, (1,), bad)
            bad_x.requires_grad_()
            with normkit.use_backend(backend):
                y = getattr(F, kind)(bad_x, bad_mean, var, weight, None, False)
            (dx,) = torch.autograd.grad(y, bad_x, dy)
            torch.testing.assert_close(dx.double(), expected, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("backend", ["auto", "numba"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_dx_behind_an_activation_is_torchs(bad: float, backend: str) -> None:
    layer, x, dy = normkit.BatchNormAct2d(3).eval(), torch.randn(4, 3, 5, 7), torch.randn(4, 3, 5, 7)
    spoil(x, (0, 1, 0, 0), bad)
    x.requires_grad_()
    with normkit.use_backend(backend):
        (dx,) = torch.autograd.grad(layer(x), x, dy)
    theirs = torch.relu(TF.batch_norm(x, layer.running_mean, layer.running_var))
    torch.testing.assert_close(dx, torch.autograd.grad(theirs, x, dy)[0])
