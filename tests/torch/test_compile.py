"""torch.compile, torch.export and ONNX, for every layer."""

import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

import normkit
from normkit.backends import compiled
from normkit.spec import Norm
from tests.torch.torch_layers import LAYERS, Layer, assert_same, says_export, step


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_compiles_whole_once_and_equals_torch(name: str, mode: bool) -> None:
    row = LAYERS[name]
    layer, twin = row.ours().train(mode), row.twin().train(mode)
    graph: Any = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for seed in range(4):  # each step has another num_batches_tracked
        x = row.input(seed)
        found = step(graph, x)
        prefix = "_orig_mod."
        assert_same({key.removeprefix(prefix): value for key, value in found.items()}, step(twin, x))
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", [name for name in LAYERS if name != "BatchNorm2d, untracked"])
def test_batch_sizes_share_a_graph(name: str) -> None:
    row = LAYERS[name]
    layer, twin = row.ours(), row.twin()
    graph = torch.compile(layer, backend="aot_eager", fullgraph=True, dynamic=True)
    for batch in (4, 7, 9):
        x = row.input(batch, batch)
        torch.testing.assert_close(graph(x), twin(x))
    assert counters["stats"]["unique_graphs"] == 1


def operators(graphs: list[torch.fx.GraphModule]) -> set[str]:
    """What the graphs call."""
    return {str(node.target) for graph in graphs for node in graph.graph.nodes if node.op == "call_function"}


def collecting() -> tuple[list[torch.fx.GraphModule], Callable[..., Any]]:
    """A list, and a compiler that runs graphs as they are and puts them into it."""
    graphs: list[torch.fx.GraphModule] = []

    def collect(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        graphs.append(graph)
        return graph

    if says_export():
        pytest.skip("this torch says that it exports whenever it compiles: its own operations are in the graph")
    return graphs, collect


@pytest.mark.parametrize("name", LAYERS)
def test_graphs_hold_our_operators(name: str) -> None:
    graphs, collect = collecting()
    row = LAYERS[name]
    torch.compile(row.ours(), backend=collect, fullgraph=True)(row.input())
    found = operators(graphs)
    assert any("normkit" in operator for operator in found), found
    assert not any("batch_norm" in operator or "layer_norm" in operator for operator in found), found


FUSED = ("LayerNorm", "LayerNorm2d", "LayerNorm2d, channels last", "RMSNorm")
TRACKED = ("BatchNorm2d", "InstanceNorm2d, tracked")


@pytest.mark.parametrize("name", ["GroupNorm", *FUSED, *TRACKED])
def test_without_gradients_the_compiler_gets_the_norms_that_it_fuses(name: str) -> None:
    graphs, collect = collecting()
    row = LAYERS[name]
    for training in (True, False):
        layer, twin = row.ours().train(training), row.twin().train(training)
        graph = torch.compile(layer, backend=collect, fullgraph=True)
        with torch.no_grad():
            found = graph(row.input())
            torch.testing.assert_close(found, twin(row.input()))
            assert found.stride() == layer(row.input()).stride()
        fused = name in FUSED or (name in TRACKED and not training)
        assert any("normkit" in operator for operator in operators(graphs)) != fused
        graphs.clear()
        torch._dynamo.reset()


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch 2.14's own opcheck
@pytest.mark.parametrize("name", ["BatchNorm2d", "LayerNorm", "LayerNorm2d, channels last", "RMSNorm", "GroupNorm"])
@pytest.mark.parametrize("given", [False, True])
def test_operators_keep_the_rules_of_torch_library(name: str, given: bool) -> None:
    row = LAYERS[name]
    if given and "Batch" not in name:
        pytest.skip("only BatchNorm normalizes by given statistics")
    norm = {
        "Batch": Norm("batch"),
        "Layer": Norm("layer", normalized_shape=(5,)),
        "RMSNo": Norm("layer", subtract_mean=False, normalized_shape=(5,)),
        "Group": Norm("group", num_groups=2),
    }[name[:5]]
    if name.startswith("LayerNorm2d"):
        norm = Norm("channel")
    parameters = [p.detach().requires_grad_() for p in row.ours().parameters()]
    weight, bias = (*parameters, None)[:2]
    mean, var = (torch.zeros(3).double(), torch.ones(3).double()) if given else (None, None)
    x = row.input().requires_grad_()
    inputs = (x, weight, bias, mean, var, norm.kind, compiled._encode(norm), 1e-3)
    torch.library.opcheck(compiled._forward, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_inductor_equals_torch(name: str) -> None:
    row = LAYERS[name]
    layer, twin = row.ours(), row.twin()
    graph = torch.compile(nn.Sequential(layer, nn.ReLU()), fullgraph=True)
    for seed in range(2):
        x = row.input(seed)
        torch.testing.assert_close(graph(x), twin(x).relu())
    assert_same(dict(layer.named_buffers()), dict(twin.named_buffers()))


def test_half_types_and_autocast_compile() -> None:
    x = torch.randn(64, 32)
    for dtype in (torch.bfloat16, torch.float16):
        layer, twin = normkit.LayerNorm(32).to(dtype), nn.LayerNorm(32).to(dtype)
        graph = torch.compile(layer, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(graph(x.to(dtype)), twin(x.to(dtype)), rtol=1e-2, atol=1e-2)
    model = nn.Sequential(nn.Linear(32, 32), normkit.LayerNorm(32))
    graph = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found, expected = graph(x), model(x)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=2e-2)


EXPORTED = {"Batch": "batch_norm", "LazyB": "batch_norm", "SyncB": "batch_norm", "Layer": "layer_norm"}
EXPORTED |= {"RMSNo": "rms_norm", "Group": "group_norm", "Insta": "instance_norm"}


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_export_gives_torchs_operators(name: str, mode: bool) -> None:
    row = LAYERS[name]
    layer, twin = row.ours().train(mode), row.twin().train(mode)
    program = export(layer, row)
    assert any(EXPORTED[name[:5]] in operator for operator in operators([program.graph_module]))
    assert not any("normkit" in operator for operator in operators([program.graph_module]))
    torch.testing.assert_close(program.module()(row.input()), twin(row.input()))


def export(layer: nn.Module, row: Layer) -> torch.export.ExportedProgram:
    """torch.export, which warns of its own deprecations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(layer, (row.input(),))


ONNX = {"Batch": "BatchNormalization", "LazyB": "BatchNormalization", "SyncB": "BatchNormalization"}
ONNX |= {"Layer": "LayerNormalization", "RMSNo": "", "Group": "", "Insta": ""}


@pytest.mark.interop
@pytest.mark.parametrize("name", LAYERS)
def test_onnx_gives_standard_operators_and_the_same_numbers(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")  # torch's exporter writes with it
    row = LAYERS[name]
    layer, x = row.ours().float().eval(), row.input().float()
    file: Any = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(layer, (x,), dynamo=True, verbose=False)
        assert program is not None
        program.save(file)
    model = onnx.load_from_string(file.getvalue())
    assert {node.domain for node in model.graph.node} <= {"", "ai.onnx"}
    kinds = {node.op_type for node in model.graph.node}
    if "untracked" not in name and "channels last" not in name:
        assert ONNX[name[:5]] in kinds or not ONNX[name[:5]], kinds
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(found), layer(x).detach(), rtol=1e-4, atol=1e-4)
