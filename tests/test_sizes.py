"""Sizes that equal an int and are none: refused as torch refuses them, and nothing of them stays in a cache."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.proxy_tensor import make_fx

import normkit
from normkit import functional as F
from normkit.spec import Norm, view

BACKENDS = ("auto", "numba", "eager")
every_backend = pytest.mark.parametrize("backend", BACKENDS)
NEW_LENGTHS: Iterator[int] = iter(range(11, 99))  # no cache has seen an input of such a length before

# What a size is made into, and calls that have one: of an input (2, 4, length), with the size of groups or of an axis.
NOT_INTS: dict[str, Callable[[int], Any]] = {
    "float": float,
    "NumPy's float": np.float64,
    "text": str,
    "tensor of floats": lambda size: torch.tensor(float(size)),
}
INTS: dict[str, Callable[[int], Any]] = {"NumPy's": np.int64, "tensor": torch.tensor}
CALLS: dict[str, Callable[[Any, Callable[[int], Any]], Any]] = {
    "group_norm": lambda x, size: F.group_norm(x, size(2)),
    "layer_norm": lambda x, size: F.layer_norm(x, (size(x.shape[-1]),)),
    "layer_norm of two axes": lambda x, size: F.layer_norm(x, [4, size(x.shape[-1])]),
    "rms_norm": lambda x, size: F.rms_norm(x, (size(x.shape[-1]),)),
    "GroupNorm": lambda x, size: _with(normkit.GroupNorm(2, 4), num_groups=size(2))(x),
    "LayerNorm": lambda x, size: _with(normkit.LayerNorm(x.shape[-1]), normalized_shape=(size(x.shape[-1]),))(x),
    "RMSNorm": lambda x, size: _with(normkit.RMSNorm(x.shape[-1]), normalized_shape=(size(x.shape[-1]),))(x),
}
every_call = pytest.mark.parametrize("name", CALLS)


def _with(layer: nn.Module, **attributes: Any) -> nn.Module:
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer


def new_input() -> Tensor:
    return torch.randn(2, 4, next(NEW_LENGTHS))


@every_backend
@every_call
def test_what_is_no_int_is_refused_and_leaves_no_trace(name: str, backend: str) -> None:
    x, call = new_input(), CALLS[name]
    with normkit.use_backend(backend):
        for make in NOT_INTS.values():
            with pytest.raises(TypeError, match=r"expected (num_groups|normalized_shape) to be an?\b.*integer"):
                call(x, make)
        y = call(x, int)
        for make in NOT_INTS.values():
            with pytest.raises(TypeError, match="integer"):
                call(x, make)
        assert torch.equal(call(x, int), y)


@every_backend
def test_a_bool_is_no_number_of_groups(backend: str) -> None:
    x = new_input()
    with normkit.use_backend(backend):
        for refused in (lambda: F.group_norm(x, True), lambda: F.layer_norm(x[..., :1], (True,))):
            with pytest.raises(TypeError, match=r"integer.* got .*True"):
                refused()
        torch.testing.assert_close(F.group_norm(x, 1), nn.functional.group_norm(x, 1))


@every_call
def test_other_ints_are_ints(name: str) -> None:
    x, call = new_input(), CALLS[name]
    for backend in ("auto", "numba", "eager"):
        with normkit.use_backend(backend):
            for make in INTS.values():
                y = call(x, make)
                assert torch.equal(call(x, int), y)


def test_arrays_are_refused_alike() -> None:
    x = new_input().numpy()
    with pytest.raises(TypeError, match="integer"):
        F.group_norm(x, 2.0)  # type: ignore[arg-type]
    assert F.group_norm(x, 2).shape == x.shape


def test_a_view_is_of_ints_alone() -> None:
    shape = (2, 4, next(NEW_LENGTHS))
    with pytest.raises(TypeError, match="expects num_groups to be an integer"):
        view(Norm("group", num_groups=2.0), shape)  # type: ignore[arg-type]
    assert all(type(size) is int for size in view(Norm("group", num_groups=np.int64(2)), shape).sizes)  # type: ignore[arg-type]


@pytest.mark.parametrize("backend", ["auto", "eager"])
def test_sizes_may_be_symbols(backend: str) -> None:
    calls: list[Callable[[Tensor], Tensor]] = [
        lambda x: F.layer_norm(x, x.shape[1:]),
        lambda x: F.rms_norm(x, x.shape[1:]),
        lambda x: F.group_norm(x, 2),
        lambda x: F.batch_norm(x, None, None, training=True),
        lambda x: F.instance_norm(x),
        lambda x: F.channel_norm(x),
    ]
    for call in calls:
        with normkit.use_backend(backend):
            traced = make_fx(call, tracing_mode="symbolic")(torch.randn(2, 8, 5))
        x = torch.randn(3, 8, 7)
        torch.testing.assert_close(traced(x), call(x))
