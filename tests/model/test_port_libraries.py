"""Norms that Keras, Flax, MLX and ONNX train or hold, evaluated in torch after the port."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import normkit
from normkit.model.port_files import read_arrays

pytestmark = pytest.mark.interop

CHANNELS, STEPS = 6, 10
SHAPE = (8, 5, 5, CHANNELS)  # (N, H, W, C)


def batches() -> list[Any]:
    """Ten batches whose channels differ in mean and spread."""
    rng = np.random.default_rng(0)
    means, spreads = rng.normal(0, 3, CHANNELS), rng.uniform(0.5, 4, CHANNELS)
    return [rng.normal(means, spreads, SHAPE).astype(np.float32) for _ in range(STEPS)]


class TorchNet(nn.Module):
    """Batch norm over the channels, then layer norm and RMS norm of each position."""

    def __init__(self, ported: normkit.Ported) -> None:
        super().__init__()
        arguments = {layer.new_name: layer.arguments for layer in ported.layers}
        self.batch = nn.BatchNorm2d(CHANNELS, **arguments["batch"])
        self.layer = nn.LayerNorm(CHANNELS, **arguments["layer"])
        self.rms = nn.RMSNorm(CHANNELS, **arguments["rms"])
        self.load_state_dict(ported.state)

    def forward(self, x: Tensor) -> Tensor:
        y = self.batch(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        result: Tensor = self.rms(self.layer(y))
        return result


def assert_evaluates_alike(ported: normkit.Ported, x: Any, expected: Any) -> None:
    net = TorchNet(ported).eval()
    with torch.no_grad():
        y = net(torch.from_numpy(x))
    np.testing.assert_allclose(y.numpy(), np.asarray(expected), atol=2e-5)


def test_keras() -> None:
    keras = pytest.importorskip("keras")
    layers = keras.layers
    inputs = keras.Input(SHAPE[1:])
    y = layers.BatchNormalization(name="batch")(inputs)
    y = layers.LayerNormalization(name="layer")(y)
    outputs = layers.RMSNormalization(name="rms")(y)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.SGD(0.3), loss="mse")
    data = batches()
    for batch in data:
        model.train_on_batch(batch, np.roll(batch, 1, -1))
    ported = normkit.port(model.weights, "keras", "torch")
    assert not np.allclose(ported.state["batch.weight"], 1.0)
    assert_evaluates_alike(ported, data[0], model(data[0], training=False))

    back = normkit.port(TorchNet(ported).state_dict(), "torch", "keras", kinds={"rms": "rms"})
    expected = np.asarray(model(data[0], training=False))
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
        weight.assign(back.state[weight.path])
    np.testing.assert_array_equal(np.asarray(model(data[0], training=False)), expected)


def test_flax_linen() -> None:
    linen = pytest.importorskip("flax.linen")
    import jax

    class Net(linen.Module):  # type: ignore[misc, name-defined]
        @linen.compact
        def __call__(self, x: Any, *, training: bool) -> Any:
            x = linen.BatchNorm(use_running_average=not training, name="batch")(x)
            return linen.RMSNorm(name="rms")(linen.LayerNorm(name="layer")(x))

    net, data = Net(), batches()
    variables = net.init(jax.random.key(0), data[0], training=False)
    params, stats = variables["params"], variables["batch_stats"]

    def loss(params: Any, stats: Any, x: Any) -> Any:
        y, new = net.apply({"params": params, "batch_stats": stats}, x, training=True, mutable=["batch_stats"])
        return ((y - np.roll(x, 1, -1)) ** 2).mean(), new["batch_stats"]

    for batch in data:
        gradients, stats = jax.grad(loss, has_aux=True)(params, stats, batch)
        params = jax.tree.map(lambda w, g: w - 0.3 * g, params, gradients)
    variables = {"params": params, "batch_stats": stats}
    expected = net.apply(variables, data[0], training=False)
    ported = normkit.port(variables, "flax", "torch", kinds={"rms": "rms"})
    assert not np.allclose(ported.state["batch.weight"], 1.0)
    assert_evaluates_alike(ported, data[0], expected)
    back = normkit.port(TorchNet(ported).state_dict(), "torch", "flax", kinds={"rms": "rms"})
    np.testing.assert_array_equal(net.apply(back.state, data[0], training=False), expected)


def test_flax_nnx() -> None:
    nnx = pytest.importorskip("flax.nnx")
    norm = nnx.BatchNorm(CHANNELS, rngs=nnx.Rngs(0))
    data = batches()
    for batch in data:
        norm(batch, use_running_average=False)
    ported = normkit.port({"batch": nnx.to_pure_dict(nnx.state(norm))}, "flax", "torch")
    layer = nn.BatchNorm2d(CHANNELS, **ported.layers[0].arguments).eval()
    layer.load_state_dict({name.removeprefix("batch."): value for name, value in ported.state.items()})
    with torch.no_grad():
        y = layer(torch.from_numpy(data[0]).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(y, norm(data[0], use_running_average=True), atol=1e-5)


def test_a_count_goes_on_as_torch_would_have(tmp_path: Path) -> None:
    """The variance of one batch, stored by Flax and by torch with the weight of the batch at 1."""
    linen = pytest.importorskip("flax.linen")
    import jax

    x = batches()[0]
    norm = linen.BatchNorm(use_running_average=False, momentum=0.0)
    variables = norm.init(jax.random.key(0), x)
    _, new = norm.apply(variables, x, mutable=["batch_stats"])
    state = {"params": {"n": variables["params"]}, "batch_stats": {"n": new["batch_stats"]}}
    ported = normkit.port(state, "flax", "torch", count=x.size // CHANNELS, momentum=0.0)
    layer = nn.BatchNorm2d(CHANNELS, **ported.layers[0].arguments)
    assert layer.momentum == 1.0
    layer(torch.from_numpy(x).permute(0, 3, 1, 2))
    assert layer.running_var is not None
    torch.testing.assert_close(ported.state["n.running_var"], layer.running_var, rtol=1e-4, atol=0)


def test_mlx() -> None:
    core: Any
    mlx: Any
    core, mlx = pytest.importorskip("mlx.core"), pytest.importorskip("mlx.nn")

    class Net(mlx.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.batch, self.layer, self.rms = mlx.BatchNorm(CHANNELS), mlx.LayerNorm(CHANNELS), mlx.RMSNorm(CHANNELS)

        def __call__(self, x: Any) -> Any:
            return self.rms(self.layer(self.batch(x)))

    net, data = Net(), batches()
    for batch in data:
        net(core.array(batch))
    ported = normkit.port(net.parameters(), "mlx", "torch", kinds={"rms": "rms"})
    net.eval()
    assert_evaluates_alike(ported, data[0], net(core.array(data[0])))


def exported(tmp_path: Path) -> tuple[Path, nn.Sequential, Tensor]:
    """A trained batch norm in an ONNX file, kept apart from the convolution before it."""
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(CHANNELS)
    net = nn.Sequential(nn.ReLU(), norm, nn.ReLU())
    x = torch.randn(4, CHANNELS, 5, 5) * 3 + 1
    for _ in range(STEPS):
        net(x)
    with torch.no_grad():
        norm.weight.uniform_(0.5, 1.5)
        norm.bias.uniform_(-1, 1)
    net.eval()
    file = tmp_path / "net.onnx"
    torch.onnx.export(net, (x,), file, dynamo=True, optimize=False, verbose=False, external_data=False)
    return file, net, x


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_onnx_to_torch_and_back(tmp_path: Path) -> None:
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    file, net, x = exported(tmp_path)
    nodes = read_arrays(file)
    ported = normkit.port(nodes, "onnx", "torch")
    assert set(ported.state) == {"1.weight", "1.bias", "1.running_mean", "1.running_var"}
    fresh = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(CHANNELS), nn.ReLU()).eval()
    fresh.load_state_dict(ported.state, strict=False)
    session = runtime.InferenceSession(str(file))
    expected = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(fresh(x), expected, atol=1e-5)

    back = normkit.port(net.state_dict(), "torch", "onnx").state["1"]
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    node = helper.make_node("BatchNormalization", ["X", *back], ["Y"], epsilon=1e-5)
    tensor = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node],
        "norm",
        [tensor("X", onnx.TensorProto.FLOAT, list(x.shape))],
        [tensor("Y", onnx.TensorProto.FLOAT, list(x.shape))],
        [numpy_helper.from_array(array, name) for name, array in back.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=10)
    y = runtime.InferenceSession(model.SerializeToString()).run(None, {"X": x.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(y, net[1](x), atol=1e-5)


@pytest.mark.slow
def test_a_classifier_whose_weights_are_constant_nodes() -> None:
    """The direction classifier of rapidocr: 35 batch norms, no initializer; each is as torch evaluates it."""
    onnx, runtime = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    package = find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        pytest.skip("rapidocr is not installed: pip install --no-deps rapidocr-onnxruntime==1.4.4")
    file = Path(package.origin).parent / "models" / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
    ported = normkit.port(read_arrays(file), "onnx", "torch")
    assert len(ported.layers) == 35

    model = onnx.load(file)
    nodes = {node.name: node for node in model.graph.node if node.op_type == "BatchNormalization"}
    values = [name for node in nodes.values() for name in (node.input[0], node.output[0])]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(values))
    session = runtime.InferenceSession(model.SerializeToString())
    x = np.random.default_rng(0).normal(size=(1, 3, 48, 192)).astype(np.float32)
    results = dict(zip(values, session.run(values, {session.get_inputs()[0].name: x}), strict=True))
    for layer in ported.layers:
        prefix = f"{layer.new_name}."
        state = {name.removeprefix(prefix): value for name, value in ported.state.items() if name.startswith(prefix)}
        norm = nn.BatchNorm2d(len(state["weight"]), **layer.arguments).eval()
        norm.load_state_dict({**norm.state_dict(), **state})
        inputs, expected = (results[value] for value in (nodes[layer.name].input[0], nodes[layer.name].output[0]))
        with torch.no_grad():
            np.testing.assert_allclose(norm(torch.from_numpy(inputs)), expected, rtol=1e-4, atol=1e-4)
