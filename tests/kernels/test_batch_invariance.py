"""The same row gives the same bits in any batch, at any position of it, with any number of threads.

It is a promise of the kernels: of `use_backend("numba")`, and of `torch.use_deterministic_algorithms(True)`, which
chooses them at every size.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

import normkit
from normkit import functional as F

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
Function = Callable[[Tensor, Tensor, Tensor], Tensor]

# Norms whose statistics are each sample's own, on inputs of (N, H): weight and bias are of size H.
ROWS: dict[str, Function] = {
    "layer": lambda x, w, b: F.layer_norm(x, w.shape, w, b),
    "rms": lambda x, w, b: F.rms_norm(x, w.shape, w),
    "group": lambda x, w, b: F.group_norm(x.view(len(x), 8, -1), 2, w[:8], b[:8]).view(x.shape),
    "instance": lambda x, w, b: F.instance_norm(x.view(len(x), 8, -1), None, None, w[:8], b[:8]).view(x.shape),
    "channel": lambda x, w, b: F.channel_norm(x.view(len(x), 8, -1), w[:8], b[:8]).view(x.shape),
    "batch, evaluation": lambda x, w, b: F.batch_norm(x, b.detach(), w.detach().abs() + 0.5, w, b),
    "batch of images, evaluation": lambda x, w, b: F.batch_norm(
        x.view(len(x), 8, -1), b[:8].detach(), w[:8].detach().abs() + 0.5, w[:8], b[:8]
    ).view(x.shape),
}


@pytest.fixture
def kernels_only() -> Iterator[None]:
    with normkit.use_backend("numba"):
        yield


@pytest.fixture
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def result(
    function: Function, x: Tensor, dy: Tensor, weight: Tensor, bias: Tensor, start: int
) -> tuple[Tensor, Tensor]:
    """The result and dx of rows that begin `start` elements into their memory."""
    memory = torch.zeros(x.numel() + start, dtype=x.dtype)
    x = memory[start:].view(x.shape).copy_(x).requires_grad_()
    y = function(x, weight, bias)
    return y.detach(), torch.autograd.grad(y, x, dy)[0]


def compare(name: str, rows: int, width: int, dtype: torch.dtype) -> None:
    """Compare rows of one batch with the same rows of others."""
    function = ROWS[name]
    x, dy = (torch.randn(rows, width) * 3 + 1).to(dtype), torch.randn(rows, width).to(dtype)
    weight, bias = torch.randn(width).to(dtype), torch.randn(width).to(dtype)
    torch.set_num_threads(2)
    y, dx = result(function, x, dy, weight, bias, 0)
    for count, threads, start in ((1, 1, 0), (1, 2, 3), (7, 2, 1), (rows, 3, 0), (rows - 1, 2, 5)):
        torch.set_num_threads(threads)
        for first in {0, (rows - count) // 2, rows - count}:
            share = slice(first, first + count)
            found = result(function, x[share], dy[share], weight, bias, start)
            assert torch.equal(found[0], y[share]), (count, threads, start, first)
            assert torch.equal(found[1], dx[share]), (count, threads, start, first)


@pytest.mark.usefixtures("kernels_only")
@pytest.mark.parametrize("width", [128, 1000])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_has_the_same_bits_in_any_batch(name: str, width: int, dtype: torch.dtype) -> None:
    compare(name, 100, width, dtype)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", ROWS)
def test_deterministic_algorithms_promise_the_same(name: str) -> None:
    compare(name, 100, 128, torch.float32)


@pytest.mark.slow
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(("rows", "width"), [(2048, 128), (1000, 768), (500, 8192)])
@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_row_has_the_same_bits_in_large_batches(name: str, rows: int, width: int, dtype: torch.dtype) -> None:
    compare(name, rows, width, dtype)


@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("name", ROWS)
def test_gradients_of_weights_do_not_depend_on_the_threads(name: str) -> None:
    found = []
    x, dy = torch.randn(50, 128), torch.randn(50, 128)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        weight, bias = torch.linspace(-1, 1, 128).requires_grad_(), torch.zeros(128, requires_grad=True)
        learned = (weight,) if name == "rms" else (weight, bias)
        found.append(torch.autograd.grad(ROWS[name](x, weight, bias), learned, dy))
    for gradients in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(gradients, found[0], strict=True))
