"""Running statistics in half precision are updated in single precision, as torch.nn's are.

A variance of 93,000 is beyond float16, whose largest number is 65,504; a tenth of it is not.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit import functional as F

HALF = (torch.float16, torch.bfloat16)
every_backend = pytest.mark.parametrize("backend", ["auto", "numba", "aten", "eager"])
every_dtype = pytest.mark.parametrize("dtype", HALF, ids=str)
LAYERS: dict[str, tuple[Callable[[Any], nn.Module], tuple[int, ...]]] = {
    "batch": (lambda of: of.BatchNorm1d(3), (64, 3, 50)),
    "batch, cumulative": (lambda of: of.BatchNorm1d(3, momentum=None), (64, 3, 50)),
    "batch, no affine": (lambda of: of.BatchNorm1d(3, affine=False), (64, 3, 50)),
    "instance": (lambda of: of.InstanceNorm1d(3, affine=True, track_running_stats=True), (4, 3, 500)),
    "instance, one sample": (lambda of: of.InstanceNorm1d(3, track_running_stats=True), (1, 3, 500)),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


def large(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Values whose variance is about 93,000."""
    return (torch.randn(shape) * 305 + 40).to(dtype)


def pair(name: str, dtype: torch.dtype) -> tuple[nn.Module, nn.Module, Tensor]:
    """A layer of ours that has seen one small batch, torch.nn's with the same state, and a large batch."""
    make, shape = LAYERS[name]
    layer, twin = make(normkit).to(dtype), make(nn).to(dtype)
    twin(torch.randn(shape).to(dtype))
    layer.load_state_dict(twin.state_dict())
    return layer, twin, large(shape, dtype)


def assert_same_statistics(layer: nn.Module, twin: nn.Module, dtype: torch.dtype) -> None:
    """Equal to a unit in the last place, and finite."""
    for ours, theirs in zip(layer.buffers(), twin.buffers(), strict=True):
        assert bool(ours.isfinite().all())
        torch.testing.assert_close(ours.double(), theirs.double(), rtol=torch.finfo(dtype).eps, atol=1e-3)


@every_backend
@every_dtype
@every_layer
def test_a_large_variance_counts_by_its_momentum(name: str, dtype: torch.dtype, backend: str) -> None:
    layer, twin, x = pair(name, dtype)
    with normkit.use_backend(backend):
        torch.testing.assert_close(layer(x), twin(x), rtol=1e-2, atol=1e-2)
    assert_same_statistics(layer, twin, dtype)


@pytest.mark.parametrize("name", ["batch", "batch, cumulative", "instance"])
@pytest.mark.parametrize("autocast", [False, True], ids=["our operators", "torch's"])
def test_in_compiled_graphs_too(name: str, autocast: bool) -> None:
    layer, twin, x = pair(name, torch.float16)
    graph: Any = torch.compile(layer, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        graph(x)
    twin(x)
    assert_same_statistics(layer, twin, torch.float16)


@every_backend
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_a_momentum_that_is_a_tensor(name: str, backend: str) -> None:
    x, found = large((4, 3, 500), torch.float16), []
    for momentum in (0.1, torch.tensor(0.1)):
        for weight in (None, torch.ones(3).half()):
            statistics = torch.zeros(3).half(), torch.ones(3).half()
            with normkit.use_backend(backend):
                getattr(F, name)(x, *statistics, weight, None, True, momentum)
            found.append(torch.cat(statistics))
    assert 8_000 < float(found[0].max()) < 11_000
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-3, atol=1e-2)


@every_backend
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
def test_of_the_valid_elements_too(name: str, backend: str) -> None:
    x, mask, found = large((4, 3, 500), torch.float16), torch.ones(4, 500, dtype=torch.bool), []
    for given in (None, mask):
        statistics = torch.zeros(3).half(), torch.ones(3).half()
        with normkit.use_backend(backend):
            getattr(F, name)(x, *statistics, None, None, True, mask=given)
        found.append(torch.cat(statistics))
    assert bool(found[1].isfinite().all())
    torch.testing.assert_close(found[1], found[0], rtol=2e-3, atol=1e-2)
