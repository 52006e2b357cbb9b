"""What the masked kernels do that inputs of a few elements do not show: blocks, streams, threads, ranges."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.backends.numba import masked
from normkit.backends.numba.tuning import TUNING
from tests.cases import TOLERANCE, error
from tests.masked import KINDS, Kind, draw, ragged_step, randomize, step

_LAUNCH = sys.modules[masked.Launch.__module__]


@pytest.fixture(autouse=True)
def _kernels() -> Iterator[None]:
    with normkit.use_backend("numba"):
        yield
    masked.launch.cache_clear()


@pytest.fixture(params=[False, True], ids=["cached", "streamed"])
def streamed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether results are written past the caches, as large ones are."""
    masked.launch.cache_clear()
    monkeypatch.setattr(_LAUNCH, "TUNING", replace(TUNING, stream_bytes=0 if request.param else 1 << 40))


def layer_of(kind: str, shape: tuple[int, ...], dtype: torch.dtype) -> nn.Module:
    return randomize(KINDS[kind].ours(len(shape))).to(dtype)


def in_float64(kind: str, layer: nn.Module) -> Kind:
    """The kind whose torch layer has the weights of a layer, which may be rounded."""

    def build() -> nn.Module:
        twin = KINDS[kind].torch()
        twin.load_state_dict(layer.state_dict())
        return twin

    return replace(KINDS[kind], torch=build)


@pytest.mark.usefixtures("streamed")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 500, 9001])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_length(kind: str, size: int, dtype: torch.dtype) -> None:
    if kind == "instance" and size == 1:
        pytest.skip("one value for each statistic")
    x, dy, mask = draw((5, 6, size), dtype)
    layer = layer_of(kind, x.shape, dtype)
    expected = ragged_step(in_float64(kind, layer), x, dy, mask.long())
    found = step(layer, x, dy, mask=mask)
    sums = TOLERANCE[dtype] * (3 if size > 4096 else 1)
    for mine, theirs in zip(
        (found.y, found.dx, *found.parameters), (expected.y, expected.dx, *expected.parameters), strict=True
    ):
        assert error(mine.double(), theirs) < sums


@pytest.mark.parametrize("kind", KINDS)
def test_bits_do_not_depend_on_the_number_of_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_LAUNCH, "TUNING", replace(TUNING, single_thread_elements=0))
    masked.launch.cache_clear()
    x, dy, mask = draw((7, 6, 300), torch.float32)
    found = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        results = step(layer_of(kind, x.shape, torch.float32), x, dy, mask=mask)
        found.append([tensor.numpy().tobytes() for tensor in (results.y, results.dx, *results.parameters)])
    assert [bits == found[0] for bits in found] == [True] * 4


def test_first_values_far_from_the_mean_lose_no_digits() -> None:
    """Sums about the first row would cancel: its values are 1,000 standard deviations away from all others."""
    x, dy, mask = draw((40, 6, 100), torch.float32)
    x[2:] += 1000.0
    mask[:2, 3:] = False
    x, dy = (value.masked_fill(~mask[:, None], torch.nan) for value in (x, dy))
    found = step(layer_of("batch", x.shape, torch.float32), x, dy, mask=mask)
    expected = ragged_step(KINDS["batch"], x, dy, mask.long())
    assert error(found.y, expected.y) < TOLERANCE[torch.float32]
    assert error(found.dx, expected.dx) < TOLERANCE[torch.float32]


def test_squares_beyond_the_range_of_float32() -> None:
    x, dy, mask = draw((4, 6, 50), torch.float32)
    x = x * 1e25
    layer: Any = layer_of("batch", x.shape, torch.float32)
    layer.track_running_stats = False
    found = step(layer, x, dy, mask=mask)
    assert error(found.y, ragged_step(KINDS["batch"], x, dy, mask.long()).y) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_constant_channel_gives_its_bias(dtype: torch.dtype) -> None:
    _, _, mask = draw((4, 6, 50), dtype)
    layer: Any = layer_of("batch", (4, 6, 50), dtype)
    y = layer(torch.full((4, 6, 50), 1234.5, dtype=dtype), mask=mask)
    expected = torch.where(mask[:, None], layer.bias[:, None], 0.0)
    assert torch.equal(y, expected.to(dtype))


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("wanted", ["x", "weight", "bias"])
def test_only_the_gradients_that_are_wanted(wanted: str, affine: bool) -> None:
    if not affine and wanted != "x":
        pytest.skip("there is none")
    x, dy, mask = draw((5, 6, 40))
    layer: Any = randomize(normkit.BatchNorm1d(6, eps=3e-3, affine=affine)).double().requires_grad_(False)
    leaf: Tensor = x if wanted == "x" else getattr(layer, wanted)
    leaf.requires_grad_()
    (found,) = torch.autograd.grad(layer(x, mask=mask), leaf, dy)
    twin = nn.BatchNorm1d(6, eps=3e-3, affine=affine).double()
    twin.load_state_dict({key: value for key, value in layer.state_dict().items() if key in twin.state_dict()})
    expected = ragged_step(replace(KINDS["batch"], torch=lambda: twin), x, dy, mask.long())
    gradients = dict(zip(("x", "weight", "bias"), (expected.dx, *expected.parameters), strict=False))
    assert error(found, gradients[wanted]) < 1e-12


def test_inference_tensors() -> None:
    x, _, mask = draw((5, 6, 40))
    with torch.inference_mode():
        value = x.clone()
    y = layer_of("batch", x.shape, torch.float64)(value, mask=mask)
    torch.testing.assert_close(y, layer_of("batch", x.shape, torch.float64)(x, mask=mask))


def test_what_a_kernel_cannot_take_is_said() -> None:
    with pytest.raises(RuntimeError, match="the numba back end was forced, but"):
        normkit.GroupNorm(1, 4, device="meta")(
            torch.empty(2, 4, 8, device="meta"), mask=torch.ones(2, 8, device="meta")
        )
