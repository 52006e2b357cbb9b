"""torch.fx beyond a plain trace: what is called with more than an input, what a layer holds, and what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

import normkit
from normkit import functional as F
from tests.model.handmade import LlamaRMSNorm


def traced(module: nn.Module, *inputs: Tensor) -> fx.GraphModule:
    """Trace a module, check the result and that it is one call, and return the trace."""
    found = fx.symbolic_trace(module)
    calls = [node for node in found.graph.nodes if node.op not in ("placeholder", "output")]
    assert [node.op for node in calls] == ["call_module"]
    torch.testing.assert_close(found(*inputs), module(*inputs))
    return found


class WithMask(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        result: Tensor = self.layer(x, mask=mask)
        return result


class WithResidual(WithMask):
    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        result: Tensor = self.layer(x, residual)
        return result


@pytest.mark.parametrize(
    "layer",
    [normkit.BatchNorm1d(4), normkit.GroupNorm(2, 4), normkit.InstanceNorm1d(4)],
    ids=lambda one: one._get_name(),
)
def test_masks_are_recorded(layer: nn.Module) -> None:
    x, mask = torch.randn(3, 4, 6), torch.arange(6) < torch.tensor([[6], [3], [2]])
    assert not traced(WithMask(layer), x, mask)(x, mask)[2, :, 2:].any()


def test_a_residual_is_recorded() -> None:
    traced(WithResidual(normkit.BatchNormAct2d(4)), torch.randn(2, 4, 3, 3), torch.randn(2, 4, 3, 3))


def test_what_the_tools_make_of_a_layer_is_recorded() -> None:
    x = torch.randn(4, 4, 3, 3)
    frozen = nn.Sequential(normkit.BatchNorm2d(4))
    normkit.freeze(frozen)
    traced(frozen, x)
    for model in (nn.Sequential(normkit.BatchNorm2d(4)), nn.Sequential(normkit.BatchNormAct2d(4, act_layer=nn.SiLU))):
        normkit.convert(model, to="instance")
        traced(model, x)
    handmade = nn.Sequential(LlamaRMSNorm(4))
    assert normkit.accelerate(handmade).swapped
    traced(handmade, torch.randn(2, 3, 4))


@pytest.mark.parametrize("function", ["batch", "layer", "rms", "group", "instance", "channel"])
def test_functions_are_recorded(function: str) -> None:
    x, weight = torch.randn(3, 4, 4), torch.rand(4)
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "batch": lambda x: F.batch_norm(x, None, None, weight=weight, training=True),
        "layer": lambda x: F.layer_norm(x, (4,), weight),
        "rms": lambda x: F.rms_norm(x, (4,)),
        "group": lambda x: F.group_norm(x, 2, eps=1e-3),
        "instance": lambda x: F.instance_norm(x),
        "channel": lambda x: F.channel_norm(x),
    }
    graph = fx.symbolic_trace(calls[function])
    assert [node.op for node in graph.graph.nodes].count("call_function") == 1
    assert torch.equal(graph(x), calls[function](x))


class Doubled(normkit.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


def test_what_would_run_twice_is_refused() -> None:
    hooked = normkit.LayerNorm(4)
    hooked.register_forward_hook(lambda module, inputs, output: output * 2)
    refused: dict[str, Any] = {
        "overrides forward": nn.Sequential(Doubled(4)),
        "has forward hooks": nn.Sequential(hooked),
        "is traced on its own": normkit.LayerNorm(4),
        "has forward hooks.*": nn.Sequential(normkit.LazyBatchNorm1d()),  # the first input's
    }
    for words, module in refused.items():
        with pytest.raises(RuntimeError, match=f"torch.fx cannot record .* which {words}.*is_leaf_module"):
            fx.symbolic_trace(module)

    class Leaves(fx.Tracer):
        def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
            return isinstance(m, normkit.LayerNorm)

    x = torch.randn(3, 4)
    for model in (nn.Sequential(Doubled(4)), nn.Sequential(hooked)):
        torch.testing.assert_close(fx.GraphModule(model, Leaves().trace(model))(x), model(x))


@pytest.mark.parametrize("layer", ["BatchNorm1d", "LazyBatchNorm1d", "SyncBatchNorm", "InstanceNorm1d", "RMSNorm"])
@pytest.mark.parametrize("other", [[[1.0]], None, np.ones((2, 4))], ids=["list", "None", "array"])
def test_what_is_no_tensor_is_named(layer: str, other: object) -> None:
    module = getattr(normkit, layer)(*([] if layer.startswith("Lazy") else [4]))
    with pytest.raises(TypeError, match=rf"{layer} expected a torch\.Tensor; got {type(other).__name__}"):
        module(other)
