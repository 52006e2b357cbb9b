"""Faults of torch that handing a call over would inherit: each is shown on torch alone, and is not in our results.

docs/design.md has the same table, with what is done about each. Once torch has mended one its row fails here: write the
first right version into `mended`, and drop what is done about it with the last version that needs it.
"""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as TF

import normkit
from normkit import functional as F
from tests.cases import channels_last, error

DESIGN = Path(__file__).parents[2] / "docs" / "design.md"
every_backend = pytest.mark.parametrize("backend", ["auto", "numba", "aten", "eager"])
Function = Callable[[Tensor, Tensor, Tensor], Tensor]


def gradients(function: Function, x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> list[Tensor]:
    """The gradients of x, weight and bias."""
    inputs = [tensor.detach().requires_grad_() for tensor in (x, weight, bias)]
    return list(torch.autograd.grad(function(*inputs), inputs, dy))


def is_wrong(function: Function, x: Tensor, weight: Tensor, bias: Tensor, dy: Tensor) -> bool:
    """Whether gradients depend on how what is given lies in memory."""
    given = x, weight, bias, dy
    found, expected = gradients(function, *given), gradients(function, *map(dense, given))
    return any(error(a, b) > 1e-9 for a, b in zip(found, expected, strict=True))


def dense(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def strided(values: Tensor) -> Tensor:
    """A vector of every third element of a longer one."""
    longer = torch.full((3 * values.numel(),), 9.0, dtype=torch.float64)
    longer[::3] = values
    return longer[::3]


def expanded(channels: int) -> Tensor:
    """One value for all channels, before others in memory."""
    return (torch.arange(float(channels)).double() + 0.5)[:1].expand(channels)


def with_stride(x: Tensor, axis: int, stride: int) -> Tensor:
    """A tensor with another stride at an axis of size 1."""
    strides = list(x.stride())
    strides[axis] = stride
    return x.as_strided(x.shape, strides)


def batch(training: bool, f: object = TF) -> Function:
    return lambda x, w, b: f.batch_norm(x, MEAN.clone(), VAR.clone(), w, b, training)  # type: ignore[attr-defined]


def instance(training: bool, f: object = TF) -> Function:
    return lambda x, w, b: f.instance_norm(x, MEAN.clone(), VAR.clone(), w, b, training)  # type: ignore[attr-defined]


MEAN, VAR = torch.linspace(-1, 1, 4).double(), torch.linspace(0.5, 2, 4).double()
WEIGHT, BIAS = torch.linspace(0.5, 2, 4).double(), torch.linspace(-1, 1, 4).double()
X, DY = randn(3, 4, 2, 5), randn(3, 4, 2, 5)
FLAT, DFLAT = randn(3, 4, 5, 1), randn(3, 4, 5, 1)  # with an axis of size 1
ODD = [  # x and dy, one of them channels last with an odd stride there
    (FLAT, with_stride(channels_last(DFLAT), 3, 7)),
    (with_stride(channels_last(FLAT), 3, 7), DFLAT),
    (with_stride(channels_last(FLAT), 3, 0), with_stride(DFLAT, 3, 3)),
    (X[:1], with_stride(channels_last(DY[:1]), 0, 1)),
    (with_stride(channels_last(X[:1]), 0, 3), DY[:1]),
]


def weights_are_read_as_contiguous() -> bool:
    return all(
        is_wrong(batch(training), channels_last(X), weight, BIAS, channels_last(DY))
        for training in (True, False)
        for weight in (strided(WEIGHT), expanded(4))
    )


def odd_strides_mix_memory_orders() -> bool:
    return all(is_wrong(batch(training), x, WEIGHT, BIAS, dy) for training in (True, False) for x, dy in ODD)


def half_sums_overflow() -> bool:
    return gradients_overflow(TF)


def gradients_overflow(f: object) -> bool:
    """Whether the gradient of large float16 values is not finite."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        x, dy = torch.randn(2, 4, 12, 6, 6, generator=generator).unbind()
        leaf = channels_last(x * 3500.0).half().requires_grad_()
        y = f.batch_norm(leaf, None, None, training=True)  # type: ignore[attr-defined]
        if not bool(torch.autograd.grad(y, leaf, dy.half())[0].isfinite().all()):
            return True
    return False


def one_sample_mixes_memory_orders() -> bool:
    return is_wrong(instance(True), X[:1], WEIGHT, BIAS, channels_last(DY[:1]))


def bias_alone_fails() -> bool:
    bias = BIAS.clone().requires_grad_()
    try:
        torch.autograd.grad(TF.group_norm(X, 2, None, bias), bias, DY)
    except RuntimeError:
        return True
    return False


def variance_is_a_difference_of_squares() -> bool:
    return large_means_are_lost(TF)


def large_means_are_lost(f: object) -> bool:
    """Whether a group norm of a channels-last input with a large mean is far off."""
    x = (randn(4, 16, 9, 9) + 3e3).float()
    expected = TF.group_norm(x.double(), 4)
    return error(f.group_norm(channels_last(x), 4), expected) > 1e-2  # type: ignore[attr-defined]


def parameters_alone_end_the_process() -> bool:
    code = (
        "import torch; x = torch.randn(2, 4, 3, 3).to(memory_format=torch.channels_last);"
        "w = torch.ones(4, requires_grad=True); torch.nn.functional.group_norm(x, 2, w).sum().backward()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode < 0


def third_derivatives_are_wrong() -> bool:
    def third(norm: Callable[[Tensor], Tensor]) -> Tensor:
        x = torch.linspace(-1, 2, 15).double().pow(2).view(5, 3).requires_grad_()
        value = norm(x).sin().sum()
        for _ in range(3):
            (g,) = torch.autograd.grad(value, x, create_graph=True)
            value = g.pow(2).sum()
        return g.detach()

    def plain(x: Tensor, axis: int) -> Tensor:
        deviation = x - x.mean(axis, keepdim=True)
        return deviation * (deviation.square().mean(axis, keepdim=True) + 1e-5).rsqrt()

    wrong_batch = error(third(lambda x: TF.batch_norm(x, None, None, training=True)), third(lambda x: plain(x, 0)))
    wrong_layer = error(third(lambda x: TF.layer_norm(x, (3,))), third(lambda x: plain(x, 1)))
    return min(wrong_batch, wrong_layer) > 1e-6


def updated_statistics_reach_the_gradient() -> bool:
    x, mean, var = X.clone().requires_grad_(), MEAN.clone(), VAR.clone()
    y = TF.batch_norm(x, mean, var)
    var.mul_(4.0)
    try:
        (dx,) = torch.autograd.grad(y, x, DY)
    except RuntimeError:
        return True
    return error(dx, DY * (VAR + 1e-5).rsqrt().view(1, 4, 1, 1)) > 1e-9


@dataclass(frozen=True)
class Fault:
    """One fault.

    Args:
        row: How its row of docs/design.md begins.
        shows: Whether torch alone has it.
        mended: The first version of torch without it; None: there is none yet.
    """

    row: str
    shows: Callable[[], bool]
    mended: tuple[int, int] | None = None


FAULTS = (
    Fault("batch norm, weight strided or expanded", weights_are_read_as_contiguous),
    Fault("batch norm, odd stride at an axis of size 1", odd_strides_mix_memory_orders),
    Fault("batch norm, float16 and channels last", half_sums_overflow),
    Fault("instance norm of one sample", one_sample_mixes_memory_orders),
    Fault("group norm, bias without weight", bias_alone_fails),
    Fault("group norm of a channels-last input", variance_is_a_difference_of_squares),
    Fault("group norm of a channels-last input without gradient", parameters_alone_end_the_process),
    Fault("batch and layer norm, third derivative", third_derivatives_are_wrong),
    Fault("batch norm, statistics updated before backward", updated_statistics_reach_the_gradient),
)
SLOW = (parameters_alone_end_the_process,)  # it starts a process


@pytest.mark.parametrize(
    "fault",
    [pytest.param(fault, id=fault.row, marks=[pytest.mark.slow] if fault.shows in SLOW else []) for fault in FAULTS],
)
def test_torch_has_the_fault_still(fault: Fault) -> None:
    version = tuple(map(int, torch.__version__.split(".")[:2]))
    expected = fault.mended is None or version < fault.mended
    assert fault.shows() == expected, f"torch {torch.__version__} has mended: {fault.row}; say so in FAULTS"


def test_the_table_is_that_of_the_docs() -> None:
    table = DESIGN.read_text(encoding="utf-8").split("| torch's operation |")[1].split("\n\n")[0]
    assert [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]] == [f.row for f in FAULTS]


@every_backend
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("norm", [batch, instance])
def test_a_batch_norm_reads_weights_where_they_are(norm: Callable[..., Function], training: bool, backend: str) -> None:
    with normkit.use_backend(backend):
        for weight in (strided(WEIGHT), expanded(4)):
            for x, dy in ((X, DY), (channels_last(X), channels_last(DY))):
                assert not is_wrong(norm(training, F), x, weight, BIAS, dy)
        if norm is batch:
            assert not is_wrong(batch(training, F), dense(X[:, :, 0, 0]), strided(WEIGHT), BIAS, dense(DY[:, :, 0, 0]))


@every_backend
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("norm", [batch, instance])
def test_odd_strides_do_not_matter(norm: Callable[..., Function], training: bool, backend: str) -> None:
    for x, dy in [*ODD, *((x[:, :, None], dy[:, :, None]) for x, dy in ODD[:1]), (X[:1], channels_last(DY[:1]))]:
        with normkit.use_backend(backend):
            assert not is_wrong(norm(training, F), x, WEIGHT, BIAS, dy)
            y, twin = norm(training, F)(x, WEIGHT, BIAS), norm(training)(x, WEIGHT, BIAS)
        assert error(y, twin) < 1e-12
        is_last = x.is_contiguous(memory_format=torch.channels_last) if x.dim() == 4 else False
        assert y.is_contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)


@every_backend
@pytest.mark.parametrize("last", [False, True])
def test_a_group_norm_with_a_bias_alone_has_gradients(last: bool, backend: str) -> None:
    x, bias = (channels_last(X) if last else X).detach().requires_grad_(), BIAS.clone().requires_grad_()
    with normkit.use_backend(backend):
        found = torch.autograd.grad(F.group_norm(x, 2, None, bias), (x, bias), DY)
        expected = torch.autograd.grad(TF.group_norm(x, 2, torch.ones(4).double(), bias), (x, bias), DY)
    torch.testing.assert_close(found, expected)


@every_backend
def test_a_group_norm_of_channels_last_keeps_large_means(backend: str) -> None:
    with normkit.use_backend(backend):
        assert not large_means_are_lost(F)


@every_backend
def test_a_batch_norm_in_float16_has_finite_gradients(backend: str) -> None:
    with normkit.use_backend(backend):
        assert not gradients_overflow(F)
