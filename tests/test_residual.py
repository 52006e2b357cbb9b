"""BatchNormAct2d with a residual: the sum in the pass that normalizes is what it is in a pass of its own."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit import backends, reference
from normkit.backends import Call, Epilogue
from normkit.backends.numba.tuning import TUNING
from normkit.bench.contenders import NormAct
from normkit.spec import Norm
from tests.cases import TOLERANCE, Case, Draw, channels_last, draw, error, layouts, to_numpy
from tests.kernels.test_memory import saved

PLAIN = Norm("batch")
BOUNDS = [None, (0.0, math.inf), (0.0, 6.0), (-0.3, 0.8)]
Bounds = tuple[float, float] | None
# runs and columns, several of each at once and left over, one number in a run, one channel, one sample
SHAPES = [(9, 5), (70, 6), (4, 6, 7), (3, 6, 33, 7), (130, 64, 3, 3), (2, 4, 3, 5, 6), (1, 4, 9, 9), (6, 1, 9, 9)]
every_bounds = pytest.mark.parametrize("bounds", BOUNDS, ids=str)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def inputs(shape: tuple[int, ...], dtype: torch.dtype, last: bool) -> tuple[Any, Tensor]:
    """The case's input and parameters, and a residual in the layout of the input."""
    d = draw(Case(PLAIN, shape), dtype, last, "both", 3)
    residual = torch.randn(shape, generator=torch.Generator().manual_seed(4)).to(dtype)
    return d, channels_last(residual) if last else residual


def call_of(d: Draw, bounds: Bounds, residual: Tensor) -> Call:
    """A batch norm of it with a residual, between bounds."""
    return Call(d.x, PLAIN, d.weight, d.bias, d.eps, epilogue=Epilogue(bounds, residual))


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        *(("numba", dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)),
        ("eager", torch.float64),
        ("aten", torch.float64),
    ],
    ids=str,
)
@every_bounds
@every_shape
def test_equals_the_reference(shape: tuple[int, ...], bounds: Bounds, backend: str, dtype: torch.dtype) -> None:
    for last in layouts(shape):
        d, residual = inputs(shape, dtype, last)
        leaves = [t.requires_grad_() for t in (d.x, d.weight, d.bias, residual)]
        with normkit.use_backend(backend):
            y = backends.normalize(call_of(d, bounds, residual))
        dx, dweight, dbias, dresidual = torch.autograd.grad(y, leaves, d.dy)
        x, weight, bias, r = (to_numpy(t) for t in (d.x, d.weight, d.bias, residual))
        low, high = bounds or (-math.inf, math.inf)
        assert (
            error(to_numpy(y), (reference.normalize(x, PLAIN, weight, bias, d.eps).y + r).clip(low, high))
            < (TOLERANCE[dtype])
        )
        assert y.stride() == d.x.stride()
        passed = torch.where((y <= low) | (y >= high), 0.0, d.dy)
        assert torch.equal(dresidual, passed)
        backward = reference.gradients(to_numpy(passed), x, PLAIN, weight, d.eps)
        assert error(to_numpy(dx), backward.dx) < TOLERANCE[dtype]
        assert error(to_numpy(dweight), backward.dweight) < 3 * TOLERANCE[dtype]
        assert error(to_numpy(dbias), backward.dbias) < 3 * TOLERANCE[dtype]


@every_bounds
@every_shape
def test_bits_depend_on_neither_threads_nor_streams(
    shape: tuple[int, ...], bounds: Bounds, tune: Callable[..., None]
) -> None:
    for last in layouts(shape):
        d, residual = inputs(shape, torch.float32, last)
        results = []
        for stream_bytes in (TUNING.stream_bytes, 0):
            tune(stream_bytes=stream_bytes)
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                with normkit.use_backend("numba"):
                    results.append(backends.normalize(call_of(d, bounds, residual)))
        assert all(torch.equal(result, results[0]) for result in results)


@every_bounds
def test_second_derivatives(bounds: Bounds) -> None:
    d, residual = inputs((2, 3, 4, 4), torch.float64, False)

    def call(*leaves: Tensor) -> Tensor:
        x, weight, bias, other = leaves
        with normkit.use_backend("numba"):
            return backends.normalize(Call(x, PLAIN, weight, bias, d.eps, epilogue=Epilogue(bounds, other)))

    leaves = [t.requires_grad_() for t in (d.x, d.weight, d.bias, residual)]
    torch.autograd.gradcheck(call, leaves)
    torch.autograd.gradgradcheck(call, leaves)


RESIDUALS = {
    "one a channel": lambda x: torch.randn(1, 6, 1, 1),
    "another type": torch.Tensor.double,
    "another layout": channels_last,
    "strided": lambda x: torch.randn(4, 6, 5, 14)[..., ::2],
    "negated": lambda x: torch._neg_view(x),
}


@pytest.mark.parametrize("backend", ["auto", "numba", "eager"])
@pytest.mark.parametrize("make", RESIDUALS.values(), ids=RESIDUALS)
@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU, None])
def test_the_layer_is_norm_sum_and_activation(act: type[nn.Module] | None, make: Any, backend: str) -> None:
    x = torch.randn(4, 6, 5, 7)
    residual = make(x)
    layer = normkit.BatchNormAct2d(6, act_layer=act)
    plain = NormAct(nn.BatchNorm2d(6), nn.Identity() if act is None else act())
    for mode in (True, False):
        found = []
        for module in (layer.train(mode), plain.train(mode)):
            leaf, other = x.clone().requires_grad_(), residual.detach().clone().requires_grad_()
            with normkit.use_backend(backend):
                y = module(leaf, other) if residual.dtype is x.dtype or module is layer else None
            if y is None:  # torch.nn's sum in place keeps the type of its first operand
                y = plain.act(plain.norm(leaf) + other)
            y.pow(2).sum().backward()
            found.append((y, leaf.grad, other.grad))
        torch.testing.assert_close(*found, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(list(layer.state_dict().values()), list(plain.state_dict().values()))


@pytest.mark.parametrize("act", [nn.ReLU, nn.GELU])
@pytest.mark.parametrize("shape", [(5, 3, 4, 4), (2, 3, 4), (7, 2, 3, 4, 4), (2, 1, 4, 5)])
def test_a_residual_that_does_not_fit_moves_nothing(shape: tuple[int, ...], act: type[nn.Module]) -> None:
    layer = normkit.BatchNormAct2d(3, act_layer=act)
    with pytest.raises(RuntimeError, match=r"added to an input of shape \(2, 3, 4, 4\); got shape"):
        layer(torch.randn(2, 3, 4, 4), torch.randn(shape))
    with pytest.raises(RuntimeError, match=r"a residual on cpu, as the input; got meta"):
        layer(torch.randn(2, 3, 4, 4), torch.empty(2, 3, 4, 4, device="meta"))
    for no_tensor in (1.0, torch.ones(2, 3, 4, 4).numpy()):
        with pytest.raises(TypeError, match=r"expected a torch\.Tensor as residual; got"):
            layer(torch.randn(2, 3, 4, 4), no_tensor)
    torch.testing.assert_close(layer.state_dict(), nn.BatchNorm2d(3).state_dict())


def test_a_drop_layer_comes_before_the_sum() -> None:
    layer = normkit.BatchNormAct2d(3, drop_layer=lambda: nn.Dropout(1.0))
    residual = torch.randn(2, 3, 4, 4)
    assert torch.equal(layer(torch.randn(2, 3, 4, 4), residual), residual.relu())


@pytest.mark.parametrize("act", [nn.ReLU, None])
def test_no_more_is_kept_than_torch_keeps(act: type[nn.Module] | None) -> None:
    x, residual = torch.randn(8, 64, 14, 14, requires_grad=True), torch.randn(8, 64, 14, 14, requires_grad=True)
    layer = normkit.BatchNormAct2d(64, act_layer=act)
    plain = NormAct(nn.BatchNorm2d(64), nn.Identity() if act is None else nn.ReLU(inplace=True))
    kept = []
    for module in (layer, plain):
        with normkit.use_backend("numba"):
            kept.append(sum(saved(module, x, residual).values()))
    assert kept[0] <= kept[1]


def test_a_result_that_was_changed_is_an_error() -> None:
    layer, x = normkit.BatchNormAct2d(3), torch.randn(2, 3, 4, 4)
    with normkit.use_backend("numba"):
        y = layer(x, torch.randn_like(x))
    y.mul_(2.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
