"""BatchNormAct2d: norm and activation in one pass are what they are in two."""

import copy
import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as TF

import normkit
from normkit import backends, reference
from normkit.backends import Call, Epilogue
from normkit.backends.numba.tuning import TUNING
from normkit.spec import Norm
from normkit.statistics import Running
from tests.cases import TOLERANCE, Case, channels_last, draw, error, layouts, to_numpy
from tests.kernels.run import run
from tests.kernels.test_memory import saved

BOUNDS = [(0.0, math.inf), (0.0, 6.0), (-0.3, 0.8)]
# runs and columns, several of each at once and left over, one number in a run, one channel, one sample
SHAPES = [(9, 5), (70, 6), (4, 6, 7), (3, 6, 33, 7), (130, 64, 3, 3), (2, 6, 70, 65), (2, 4, 3, 5, 6), (1, 4, 9, 9)]
SHAPES += [(6, 1, 9, 9), (2, 300, 4, 4)]
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
every_bounds = pytest.mark.parametrize("bounds", BOUNDS, ids=str)


def case_of(shape: tuple[int, ...], bounds: tuple[float, float]) -> Case:
    return Case(Norm("batch"), shape, bounds=bounds)


def held(y: Any, bounds: tuple[float, float]) -> Any:
    """Where a bound holds a result."""
    return (y <= bounds[0]) | (y >= bounds[1])


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [
        *(("numba", dtype) for dtype in (torch.float64, torch.float32, torch.bfloat16)),
        *(("eager", dtype) for dtype in (torch.float64, torch.float32)),
        ("aten", torch.float64),
    ],
    ids=str,
)
@every_bounds
@every_shape
def test_equals_the_reference(
    shape: tuple[int, ...], bounds: tuple[float, float], backend: str, dtype: torch.dtype
) -> None:
    case = case_of(shape, bounds)
    for seed, last in enumerate(layouts(shape)):
        d = draw(case, dtype, last, "both", seed)
        leaves = [t.requires_grad_() for t in (d.x, d.weight, d.bias) if t is not None]
        with normkit.use_backend(backend):
            y = backends.normalize(Call(d.x, case.norm, d.weight, d.bias, d.eps, epilogue=Epilogue(bounds)))
        dx, dweight, dbias = torch.autograd.grad(y, leaves, d.dy)
        x, weight, bias, dy = (to_numpy(t) for t in (d.x, d.weight, d.bias, d.dy))
        plain = reference.normalize(x, Norm("batch"), weight, bias, d.eps).y
        assert error(to_numpy(y), plain.clip(*bounds)) < TOLERANCE[dtype]
        assert y.stride() == d.x.stride()
        if dtype.itemsize < 4:  # of the results that are rounded to a bound it cannot be seen which were beyond it
            continue
        passes = ~held(to_numpy(y), bounds)
        near = TOLERANCE[dtype] * abs(plain).max()  # a bound: rounding decides
        unsure = (abs(plain - bounds[0]) < near) | (abs(plain - bounds[1]) < near)
        assert ((passes == ~held(plain, bounds)) | unsure).all()
        backward = reference.gradients(dy * passes, x, Norm("batch"), weight, d.eps)
        assert error(to_numpy(dx), backward.dx) < TOLERANCE[dtype]
        assert error(to_numpy(dweight), backward.dweight) < 3 * TOLERANCE[dtype]
        assert error(to_numpy(dbias), backward.dbias) < 3 * TOLERANCE[dtype]


@every_bounds
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@every_shape
def test_a_gradient_passes_exactly_where_no_bound_holds_the_result(
    shape: tuple[int, ...], training: bool, bounds: tuple[float, float]
) -> None:
    case = case_of(shape, bounds)
    for last in layouts(shape):
        d = draw(case, torch.float32, last)
        running = None if training else Running(torch.full(shape[1:2], 0.7), torch.full(shape[1:2], 3.0), 0.1)
        d.dy = torch.randint(-8, 9, shape).float()  # whose sums are exact
        d.dy = channels_last(d.dy) if last else d.dy
        found = run(case, d, running=running)
        passed = torch.where(held(found.y, bounds), 0.0, d.dy)
        axes = [axis for axis in range(len(shape)) if axis != 1]
        assert found.dbias is not None
        assert torch.equal(found.dbias, passed.sum(axes))
        assert (found.y >= bounds[0]).all()
        assert (found.y <= bounds[1]).all()
        if not training:
            assert torch.equal(found.dx == 0, passed == 0)


@pytest.mark.parametrize("last", [False, True])
def test_what_is_not_finite_is_as_torchs(last: bool) -> None:
    x = torch.randn(3, 5, 40, 41)
    x[0, 1, 2, 3], x[1, 2, 0, 0] = math.nan, math.inf
    x = channels_last(x) if last else x
    dy, found = torch.randn_like(x), []
    for layer in (normkit.BatchNormAct2d(5), nn.Sequential(nn.BatchNorm2d(5), nn.ReLU())):
        leaf = x.clone().requires_grad_()
        with normkit.use_backend("numba"):
            y = layer(leaf)
        y.backward(dy)
        found.append((y.detach(), leaf.grad))
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, equal_nan=True, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", ["numba", "aten"])
def test_a_relu_holds_nothing_at_infinity(backend: str) -> None:
    layer, dy = normkit.BatchNormAct2d(3), torch.ones(2, 3, 4, 4)
    with torch.no_grad():
        layer.bias[1] = math.inf
    with normkit.use_backend(backend):
        layer(torch.randn(2, 3, 4, 4)).backward(dy)
    assert layer.bias.grad is not None
    assert layer.bias.grad[1] == 32


def test_a_bias_may_change_before_the_backward_pass() -> None:
    layer, x = normkit.BatchNormAct2d(3), torch.randn(2, 3, 4, 4)
    layer.weight.requires_grad_(False)
    with normkit.use_backend("numba"):
        y = layer(x)
        with torch.no_grad():
            layer.bias.add_(10.0)
        y.sum().backward()
    assert layer.bias.grad is not None
    assert torch.equal(layer.bias.grad, (y > 0).sum((0, 2, 3)).float())


@every_bounds
@every_shape
def test_bits_depend_on_neither_threads_nor_streams(
    shape: tuple[int, ...], bounds: tuple[float, float], tune: Callable[..., None]
) -> None:
    case = case_of(shape, bounds)
    for last in layouts(shape):
        data, found = draw(case, torch.float32, last), set()
        for stream_bytes in (TUNING.stream_bytes, 0):
            tune(stream_bytes=stream_bytes)
            for threads in (1, 2, 3):
                torch.set_num_threads(threads)
                found.add(tuple(run(case, data).bits()))
        assert len(found) == 1


def test_it_keeps_the_input_and_not_the_result() -> None:
    x = torch.randn(8, 64, 14, 14, requires_grad=True)
    with normkit.use_backend("numba"):
        ours = saved(normkit.BatchNormAct2d(64), x)
    assert sum(ours.values()) - x.nbytes == 3 * 64 * 4  # mean, rstd, shift
    assert sum(saved(nn.Sequential(nn.BatchNorm2d(64), nn.ReLU(inplace=True)), x).values()) >= 2 * x.nbytes


class TestLayer:
    def test_arguments_are_those_of_timm(self) -> None:
        names = [parameter.name for parameter in inspect.signature(normkit.BatchNormAct2d).parameters.values()]
        assert names == [
            *("num_features", "eps", "momentum", "affine", "track_running_stats", "apply_act", "act_layer"),
            *("act_kwargs", "inplace", "drop_layer", "device", "dtype"),
        ]

    @pytest.mark.parametrize(
        ("arguments", "kind", "expected"),
        [
            ({}, nn.ReLU, TF.relu),
            ({"act_layer": "relu6"}, nn.ReLU6, TF.relu6),
            ({"act_layer": nn.Hardtanh, "act_kwargs": {"min_val": -0.1, "max_val": 0.5}}, nn.Hardtanh,
             lambda y: TF.hardtanh(y, -0.1, 0.5)),
            ({"act_layer": "gelu"}, nn.GELU, TF.gelu),
            ({"act_layer": nn.LeakyReLU, "act_kwargs": {"negative_slope": 0.3}}, nn.LeakyReLU,
             lambda y: TF.leaky_relu(y, 0.3)),
            ({"act_layer": None}, nn.Identity, lambda y: y),
            ({"apply_act": False}, nn.Identity, lambda y: y),
        ],
    )  # fmt: skip
    @pytest.mark.parametrize("backend", ["auto", "numba"])
    def test_activations(self, arguments: dict[str, Any], kind: type, expected: Any, backend: str) -> None:
        layer, norm = normkit.BatchNormAct2d(3, **arguments), nn.BatchNorm2d(3)
        assert type(layer.act) is kind
        assert list(layer.state_dict()) == list(norm.state_dict())
        with normkit.use_backend(backend):
            for mode in (True, False):
                x = torch.randn(4, 3, 5, 6)
                y = layer.train(mode)(x)
                torch.testing.assert_close(y, expected(norm.train(mode)(x)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(layer.state_dict(), norm.state_dict())

    def test_inplace_is_passed_on_where_it_is_known(self) -> None:
        assert normkit.BatchNormAct2d(3).act.inplace
        assert not normkit.BatchNormAct2d(3, inplace=False).act.inplace
        assert normkit.BatchNormAct2d(3, act_layer="silu").act.inplace
        assert not normkit.BatchNormAct2d(3, act_kwargs={"inplace": False}).act.inplace

    def test_an_unknown_name_lists_the_known(self) -> None:
        with pytest.raises(ValueError, match=r"expected act_layer to be one of relu, relu6.* got 'rellu'"):
            normkit.BatchNormAct2d(3, act_layer="rellu")

    def test_who_listens_is_told(self) -> None:
        layer, x = normkit.BatchNormAct2d(3, inplace=False, drop_layer=nn.Dropout2d).eval(), torch.randn(4, 3, 5, 6)
        expected = layer(x)
        seen: list[str] = []
        with normkit.use_backend("numba"):
            for name, module in layer.named_children():
                handle = module.register_forward_hook(lambda *_, name=name: seen.append(name))
                assert torch.equal(layer(x), expected)
                handle.remove()
                module.register_full_backward_hook(lambda *_, name=name: seen.append(f"{name} backward"))
        layer(x.requires_grad_()).sum().backward()
        assert seen == ["drop", "act", "act backward", "drop backward"]

    def test_a_drop_layer_comes_between(self) -> None:
        layer, x = normkit.BatchNormAct2d(3, drop_layer=lambda: nn.Dropout2d(1.0)), torch.randn(4, 3, 5, 6)
        assert torch.equal(layer(x), torch.zeros_like(x))
        assert not torch.equal(layer.eval()(x), torch.zeros_like(x))

    def test_a_call_that_fails_moves_nothing(self) -> None:
        layer = normkit.BatchNormAct2d(3)
        for bad in (torch.randn(4, 3, 5), torch.randn(4, 2, 5, 5), torch.randn(1, 3, 1, 1)):
            with normkit.use_backend("numba"), pytest.raises((ValueError, RuntimeError)):
                layer(bad)
        assert layer.num_batches_tracked == 0

    def test_large_inputs_take_the_kernel_in_both_layouts(self) -> None:
        layer, x = normkit.BatchNormAct2d(64), torch.randn(8, 64, 40, 40, requires_grad=True)
        for value in (x, channels_last(x)):
            assert "Normalize" in type(layer(value).grad_fn).__name__


def test_a_converter_that_would_drop_the_activation_is_stopped() -> None:
    layer = normkit.BatchNormAct2d(4)
    layer(torch.randn(3, 4, 2, 2))
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 1), layer)
    state = copy.deepcopy(layer.state_dict())
    with pytest.raises(RuntimeError, match=r"normkit\.convert_sync_batchnorm"):
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert model[1] is layer
    torch.testing.assert_close(layer.state_dict(), state, rtol=0, atol=0)
    normkit.convert_sync_batchnorm(model)
    assert type(model[1].act) is nn.ReLU
    plain = normkit.BatchNormAct2d(4, apply_act=False)
    assert type(nn.SyncBatchNorm.convert_sync_batchnorm(plain)) is nn.SyncBatchNorm


def test_a_qconfig_can_be_set_and_asked_for() -> None:
    layer: Any = normkit.BatchNormAct2d(4)
    assert "qconfig" not in dir(layer)
    layer.qconfig = None
    assert layer.qconfig is None
    assert not hasattr(layer, "no_such_attribute")
