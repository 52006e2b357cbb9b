"""Tensors that bring their own versions of torch's functions: nested ones, and weights of per-sample gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as TF
from torch.nn.utils._per_sample_grad import call_for_per_sample_grads

import normkit
from normkit import functional as F

SIZES = (5, 2048)  # torch's own operations, and kernels
LAYERS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "LayerNorm": ((6,), {}),
    "GroupNorm": ((2, 4), {}),
    "InstanceNorm1d": ((4,), {"affine": True}),
    "InstanceNorm1d, tracked": ((4,), {"affine": True, "track_running_stats": True}),
    "RMSNorm": ((6,), {}),
    "BatchNorm1d": ((4,), {}),
}


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the words of its error."""
    try:
        return call()
    except (RuntimeError, ValueError, NotImplementedError, AttributeError) as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", LAYERS)
def test_per_sample_gradients(name: str, size: int, training: bool) -> None:
    """Those of torch.nn, or its error: it has none of batch and RMS norms."""
    arguments, options = LAYERS[name]
    x = (
        torch.randn(3, 4, size, 6).flatten(2)
        if name.startswith(("Group", "Instance", "Batch"))
        else torch.randn(3, size, 6)
    )
    found = []
    for library in (normkit, nn):
        layer = getattr(library, name.partition(",")[0])(*arguments, **options).train(training)

        def gradients(layer: nn.Module = layer) -> list[Any]:
            y = call_for_per_sample_grads(layer)(x)
            y.sin().sum().backward()
            samples = [getattr(parameter, "grad_sample") for parameter in layer.parameters()]  # noqa: B009  (torch's)
            return [y.detach(), *samples, *layer.buffers()]

        found.append(outcome(gradients))
    assert type(found[0]) is type(found[1])
    if isinstance(found[0], str):
        assert found[0] == found[1]
        assert name in ("BatchNorm1d", "RMSNorm")
    else:
        assert len(found[0]) >= 3
        torch.testing.assert_close(*found)


def test_per_sample_gradients_of_a_layer_norm_over_channels() -> None:
    layer, x = normkit.LayerNorm2d(4), torch.randn(3, 4, 5, 2)
    call_for_per_sample_grads(layer)(x).sin().sum().backward()
    for number, sample in enumerate(x):
        alone = normkit.LayerNorm2d(4)
        alone(sample[None]).sin().sum().backward()
        for parameter, other in zip(layer.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(parameter.grad_sample[number], other.grad)  # type: ignore[attr-defined]


def jagged(size: int) -> Tensor:
    parts = [torch.randn(length, 6) for length in (2, size, 3)]
    return torch.nested.nested_tensor(parts, layout=torch.jagged, requires_grad=True)


def rag(x: Tensor) -> Any:
    """The ragged axis and the last one."""
    return x.shape[-2:]


NESTED: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "layer": lambda f, x: f.layer_norm(x, (6,), torch.linspace(1, 2, 6)),
    "rms": lambda f, x: f.rms_norm(x, (6,), torch.linspace(1, 2, 6)),
    "layer, ragged": lambda f, x: f.layer_norm(x, rag(x)),
    "rms, ragged": lambda f, x: f.rms_norm(x, rag(x)),
    "layer, wrong": lambda f, x: f.layer_norm(x, (5,)),
    "layer, wrong beside the ragged axis": lambda f, x: f.layer_norm(x, (4, 6)),
    "batch, (N, C, j)": lambda f, x: f.batch_norm(x.transpose(1, 2), None, None, training=True),
    "batch, (N, j, C)": lambda f, x: f.batch_norm(x, torch.zeros(6), torch.ones(6), training=True),
    "group, (N, C, j)": lambda f, x: f.group_norm(x.transpose(1, 2), 2),
    "group, (N, j, C)": lambda f, x: f.group_norm(x, 2),
    "instance, (N, C, j)": lambda f, x: f.instance_norm(x.transpose(1, 2)),
    "instance, (N, j, C)": lambda f, x: f.instance_norm(x),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", NESTED)
def test_nested_tensors(case: str, size: int) -> None:
    """What torch.nn.functional makes of a jagged tensor, over its ragged axis too, or its error."""
    x = jagged(size)

    def run(library: Any) -> Any:
        y = NESTED[case](library, x)
        (dx,) = torch.autograd.grad(y, x, torch.cos(y.detach()))
        return [*y.detach().unbind(), *dx.unbind()]

    ours, theirs = outcome(lambda: run(F)), outcome(lambda: run(TF))
    assert type(ours) is type(theirs)
    if isinstance(ours, str):
        assert case not in ("layer", "rms")
        assert ours == theirs
    else:
        torch.testing.assert_close(ours, theirs)
        with normkit.use_backend("numba"), pytest.raises(RuntimeError, match="forced, but the input is nested"):
            NESTED[case](F, x)


@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
def test_nested_tensors_in_a_compiled_graph(name: str) -> None:
    layers = [getattr(library, name)(6) for library in (normkit, nn)]
    for size in (5, 4096):
        x = jagged(size)
        ours, theirs = (torch.compile(layer, backend="eager", fullgraph=True)(x) for layer in layers)
        torch.testing.assert_close(list(ours.unbind()), list(theirs.unbind()))
        dx, expected = (torch.autograd.grad(y, x, torch.cos(y.detach()))[0] for y in (ours, theirs))
        torch.testing.assert_close(list(dx.unbind()), list(expected.unbind()))


def rows(layer: nn.Module, x: Tensor) -> list[Tensor]:
    return list(layer(x).unbind())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["LayerNorm", "RMSNorm"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_nested_tensors_in_rows_of_their_own(name: str, size: int) -> None:
    """torch's older layout, whose tensors have the class Tensor."""
    x = torch.nested.nested_tensor([torch.randn(length, 6) for length in (2, size, 3)])
    for shape in (6, (2, 6)):
        ours, theirs = (outcome(partial(rows, getattr(m, name)(shape), x)) for m in (normkit, nn))
        assert type(ours) is type(theirs)
        if isinstance(ours, str):
            assert ours == theirs
        else:
            torch.testing.assert_close(ours, theirs)
