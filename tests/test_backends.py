"""Every back end against the reference, over the one table of cases."""

from typing import Any

import pytest
import torch
from torch import Tensor

import normkit
from normkit import backends, reference
from normkit.backends import Call
from normkit.spec import Norm
from normkit.statistics import Running
from tests.cases import CASES, DTYPES, TOLERANCE, Case, channels_last, draw, error, every_case, layouts, to_numpy

BACKENDS = ("numba", "aten", "eager")
# What rounding to the storage type costs the gradients of weight and bias, which are sums of rounded numbers.
PARAMETER_FACTOR = 3


def check(case: Case, backend: str, dtype: torch.dtype, last: bool, affine: str, seed: int) -> None:
    d = draw(case, dtype, last, affine, seed)
    leaves = [t.requires_grad_() for t in (d.x, d.weight, d.bias) if t is not None]
    with normkit.use_backend(backend):
        y = backends.normalize(Call(d.x, case.norm, d.weight, d.bias, d.eps))
    found = dict(zip(map(id, leaves), torch.autograd.grad(y, leaves, d.dy), strict=True))
    forward = reference.normalize(to_numpy(d.x), case.norm, to_numpy(d.weight), to_numpy(d.bias), d.eps)
    backward = reference.gradients(to_numpy(d.dy), to_numpy(d.x), case.norm, to_numpy(d.weight), d.eps)
    tolerance = TOLERANCE[dtype]
    assert y.dtype == dtype
    assert y.shape == d.x.shape
    assert error(to_numpy(y), forward.y) < tolerance
    assert error(to_numpy(found[id(d.x)]), backward.dx) < tolerance
    for parameter, expected in ((d.weight, backward.dweight), (d.bias, backward.dbias)):
        if parameter is not None:
            assert found[id(parameter)].dtype == dtype
            assert error(to_numpy(found[id(parameter)]), expected) < PARAMETER_FACTOR * tolerance
    if last:
        assert channels_last(y).data_ptr() == y.data_ptr(), "the result lost its memory format"


@every_case
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_reference(case: Case, backend: str) -> None:
    for seed, last in enumerate(layouts(case.shape)):
        for affine in ("both", "weight", "none"):
            check(case, backend, torch.float64, last, affine, seed)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("backend", ["numba", "eager"])
@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_equals_reference_in_shorter_types(case: Case, backend: str, dtype: torch.dtype) -> None:
    for seed, last in enumerate(layouts(case.shape)):
        check(case, backend, dtype, last, "both", seed)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_float32_parameters_with_half_inputs(backend: str, dtype: torch.dtype) -> None:
    x = torch.randn(8, 6, 5).to(dtype).requires_grad_()
    weight, bias = torch.randn(6, requires_grad=True), torch.randn(6, requires_grad=True)
    with normkit.use_backend(backend):
        y = normkit.functional.batch_norm(x, None, None, weight, bias, training=True)
    y.float().sum().backward()
    assert y.dtype == dtype
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert x.grad is not None
    assert x.grad.dtype == dtype
    expected = reference.normalize(to_numpy(x), Norm("batch"), to_numpy(weight), to_numpy(bias)).y
    assert error(to_numpy(y), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("backend", ["numba", "eager"])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_given_statistics(kind: str, last: bool, backend: str) -> None:
    norm = Norm(kind)
    x, dy = torch.randn(5, 4, 6, 7, dtype=torch.float64), torch.randn(5, 4, 6, 7, dtype=torch.float64)
    x = channels_last(x) if last else x
    x.requires_grad_()
    mean, var = torch.randn(4, dtype=torch.float64), torch.rand(4, dtype=torch.float64) + 0.5
    weight, bias = torch.randn(4, dtype=torch.float64, requires_grad=True), torch.randn(4, dtype=torch.float64)
    with normkit.use_backend(backend):
        y = backends.normalize(Call(x, norm, weight, bias, 1e-3, Running(mean, var, 0.1), use_input_stats=False))
    dx, dweight = torch.autograd.grad(y, (x, weight), dy)
    repeated = [to_numpy(t.repeat(5 if kind == "instance" else 1)) for t in (mean, var)]
    statistics = (repeated[0], repeated[1])
    forward = reference.normalize(to_numpy(x), norm, to_numpy(weight), to_numpy(bias), 1e-3, statistics)
    backward = reference.gradients(to_numpy(dy), to_numpy(x), norm, to_numpy(weight), 1e-3, statistics)
    assert error(to_numpy(y), forward.y) < 1e-13
    assert error(to_numpy(dx), backward.dx) < 1e-13
    assert error(to_numpy(dweight), backward.dweight) < 1e-13


def test_torch_agrees_with_the_table() -> None:
    """The functions of torch that the table names are the norms that it says."""
    for case in CASES:
        d = draw(case)
        expected = reference.normalize(to_numpy(d.x), case.norm, to_numpy(d.weight), to_numpy(d.bias), d.eps).y
        assert error(to_numpy(case.torch(d.x, d.weight, d.bias, d.eps)), expected) < 1e-12, str(case)


SMALL: list[tuple[str, tuple[int, ...], Any]] = [
    ("batch", (4, 3), lambda x, w, b: normkit.functional.batch_norm(x, None, None, w, b, True)),
    ("batch", (3, 2, 2, 2), lambda x, w, b: normkit.functional.batch_norm(x, None, None, w, b, True)),
    ("batch, evaluation", (3, 2, 2), lambda x, w, b: normkit.functional.batch_norm(
        x, torch.ones(2, dtype=x.dtype), torch.full((2,), 2.0, dtype=x.dtype), w, b)),
    ("instance", (2, 3, 4), lambda x, w, b: normkit.functional.instance_norm(x, None, None, w, b)),
    ("group", (2, 4, 3), lambda x, w, b: normkit.functional.group_norm(x, 2, w, b)),
    ("layer", (3, 5), lambda x, w, b: normkit.functional.layer_norm(x, (5,), w, b)),
    ("rms", (3, 5), lambda x, w, b: normkit.functional.rms_norm(x, (5,), w)),
    ("channel", (2, 3, 4), lambda x, w, b: normkit.functional.channel_norm(x, w, b)),
]  # fmt: skip


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("name", "shape", "function"), SMALL, ids=[row[0] + str(row[1]) for row in SMALL])
def test_gradcheck(name: str, shape: tuple[int, ...], function: Any, backend: str) -> None:
    size = shape[-1] if name in ("layer", "rms") else shape[1]
    leaves = [torch.randn(s, dtype=torch.float64, requires_grad=True) for s in (shape, size, size)]
    with normkit.use_backend(backend):
        inputs = leaves[:2] if name == "rms" else leaves
        call = (lambda x, w: function(x, w, None)) if name == "rms" else function
        assert torch.autograd.gradcheck(call, inputs)
        assert torch.autograd.gradgradcheck(call, inputs)


@pytest.mark.parametrize("backend", BACKENDS)
def test_only_the_gradients_that_are_asked_for(backend: str) -> None:
    for wanted in range(1, 8):
        leaves: list[Tensor] = [torch.randn(6, 4, 3), torch.randn(4), torch.randn(4)]
        for index, leaf in enumerate(leaves):
            leaf.requires_grad_(bool(wanted >> index & 1))
        with normkit.use_backend(backend):
            normkit.functional.batch_norm(leaves[0], None, None, leaves[1], leaves[2], True).pow(2).sum().backward()
        assert [leaf.grad is not None for leaf in leaves] == [leaf.requires_grad for leaf in leaves]


@pytest.mark.parametrize("backend", ["auto", "numba", "aten", "eager"])
def test_parameters_of_a_group_norm_get_gradients_where_a_channels_last_input_needs_none(backend: str) -> None:
    x = torch.randn(2, 6, 4, 4).contiguous(memory_format=torch.channels_last)  # torch's own group norm crashes here
    layer = normkit.GroupNorm(2, 6)
    with normkit.use_backend(backend):
        (layer(x) * x).sum().backward()
    expected = torch.nn.functional.group_norm(x.contiguous(), 2) * x
    torch.testing.assert_close(layer.weight.grad, expected.sum((0, 2, 3)))
    torch.testing.assert_close(layer.bias.grad, x.sum((0, 2, 3)))
