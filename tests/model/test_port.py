"""Arrays of norms from one library to another: what they are called, and that the numbers come out the same."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import normkit
from normkit.conventions import CONVENTIONS
from normkit.errors import UserError

RNG = np.random.default_rng(0)
CHANNELS = 6
LIBRARIES = tuple(CONVENTIONS)


def torch_net() -> nn.Sequential:
    """Norms of every kind, with random arrays, among layers that are none."""
    net = nn.Sequential(
        nn.Conv2d(3, CHANNELS, 1),
        nn.BatchNorm2d(CHANNELS),
        nn.GroupNorm(2, CHANNELS),
        nn.Flatten(1, 3),
        nn.Linear(CHANNELS, CHANNELS),
        nn.PReLU(CHANNELS),
        nn.LayerNorm(CHANNELS),
        nn.RMSNorm(CHANNELS),
    )
    with torch.no_grad():
        for tensor in (*net.parameters(), *net.buffers()):
            if tensor.is_floating_point():
                tensor.copy_(torch.rand(tensor.shape) + 0.2)
    return net


NORMS = {"1": "batch", "2": "layer", "6": "layer", "7": "rms"}


@pytest.mark.parametrize("library", [name for name in LIBRARIES if name != "torch"])
def test_there_and_back_is_the_same_state(library: str) -> None:
    state = torch_net().state_dict()
    there = normkit.port(state, "torch", library, kinds={"7": "rms"})
    assert {layer.name: layer.kind for layer in there.layers} == NORMS
    kinds = {"7": "rms"} if library == "mlx" else None
    back = normkit.port(there.state, library, "torch", kinds=kinds)
    expected = {name for name in state if name[0] in NORMS and "tracked" not in name}
    assert set(back.state) == expected
    assert all(torch.equal(back.state[name], state[name]) for name in expected)
    net = torch_net()
    missing, unexpected = net.load_state_dict(back.state, strict=False)
    assert not unexpected
    assert not [name for name in missing if name[0] in NORMS and "tracked" not in name]


def test_the_names_of_each_library() -> None:
    state = torch_net().state_dict()
    flat = {to: normkit.port(state, "torch", to, kinds={"7": "rms"}).state for to in LIBRARIES}
    assert {"1/gamma", "1/beta", "1/moving_mean", "1/moving_variance", "2/gamma", "7/scale"} <= set(flat["keras"])
    assert set(flat["flax"]) == {"params", "batch_stats"}
    assert set(flat["flax"]["params"]["1"]) == {"scale", "bias"}
    assert set(flat["flax"]["batch_stats"]) == {"1"}
    assert set(flat["flax"]["batch_stats"]["1"]) == {"mean", "var"}
    assert {"1.weight", "1.bias", "1.running_mean", "1.running_var", "7.weight"} <= set(flat["mlx"])
    assert list(flat["onnx"]["1"]) == ["scale", "B", "input_mean", "input_var"]
    assert all(isinstance(array, np.ndarray) for array in flat["keras"].values())
    assert all(isinstance(array, torch.Tensor) for array in flat["torch"].values())


def test_what_is_no_norm_is_left_and_named() -> None:
    ported = normkit.port(torch_net().state_dict(), "torch", "keras")
    left = {one.name: one.reason for one in ported.left}
    assert left == {
        "0.weight": "it is no norm's",
        "0.bias": "it is no norm's",
        "4.weight": "it is no norm's",
        "4.bias": "it is no norm's",
        "5.weight": "a weight alone may be an RMS norm's or a PReLU's: say so in `kinds`",
        "7.weight": "a weight alone may be an RMS norm's or a PReLU's: say so in `kinds`",
    }
    assert "port: 3 norm layers from torch to Keras" in str(ported)
    assert "left 2 arrays: 5.weight, 7.weight" in str(ported)


def keras_batch_norm(**extra: Any) -> dict[str, Any]:
    arrays = {name: RNG.random(CHANNELS) for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    return {f"bn/{name}": array for name, array in arrays.items()} | extra


def test_evaluation_gives_the_numbers_of_the_source() -> None:
    state = keras_batch_norm()
    ported = normkit.port(state, "keras", "torch", names={"bn": "features.norm"})
    (layer,) = ported.layers
    assert (layer.new_name, layer.arguments) == ("features.norm", {"eps": 1e-3, "momentum": 0.01})
    norm = nn.BatchNorm2d(CHANNELS, **layer.arguments).double().eval()
    norm.load_state_dict({name.rpartition(".")[2]: value for name, value in ported.state.items()})
    x = RNG.random((4, 5, 5, CHANNELS))
    expected = (x - state["bn/moving_mean"]) / np.sqrt(state["bn/moving_variance"] + 1e-3)
    expected = expected * state["bn/gamma"] + state["bn/beta"]
    y = norm(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    np.testing.assert_allclose(y.detach().numpy(), expected, atol=1e-12)


def test_a_count_gives_what_the_other_library_would_have_stored() -> None:
    state = keras_batch_norm()
    biased = state["bn/moving_variance"]
    ported = normkit.port(state, "keras", "torch", count=8)
    np.testing.assert_allclose(ported.state["bn.running_var"], biased * 8 / 7)
    assert not [note for note in ported.notes if "variance" in note]
    back = normkit.port(ported.state, "torch", "flax", count={"b*": 8})
    np.testing.assert_allclose(back.state["batch_stats"]["bn"]["var"], biased)
    two = {**state, **{name.replace("bn", "other"): array for name, array in state.items()}}
    ported = normkit.port(two, "keras", "torch", count={"oth*": 4})
    np.testing.assert_array_equal(ported.state["bn.running_var"], biased)
    np.testing.assert_allclose(ported.state["other.running_var"], biased * 4 / 3)
    same = normkit.port(state, "keras", "flax", count=8)
    np.testing.assert_array_equal(same.state["batch_stats"]["bn"]["var"], biased)
    assert "Keras stores biased ones, torch unbiased ones" in str(normkit.port(state, "keras", "torch"))


def test_eps_and_momentum_of_the_source_are_converted() -> None:
    ported = normkit.port(keras_batch_norm(), "keras", "torch", eps=1e-4, momentum=0.9)
    assert ported.layers[0].arguments == {"eps": 1e-4, "momentum": 0.1}
    assert not [note for note in ported.notes if "default" in note]
    assert normkit.port(keras_batch_norm(), "keras", "flax").layers[0].arguments == {"epsilon": 1e-3, "momentum": 0.99}
    rms = {"norm.weight": torch.ones(4)}
    ported = normkit.port(rms, "torch", "keras", kinds={"norm": "rms"})
    assert ported.layers[0].arguments == {"epsilon": torch.finfo(torch.float32).eps}


class Variable:
    """As Keras' variables are."""

    def __init__(self, path: str, value: Any) -> None:
        self.path, self.value = path, value

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        return np.asarray(self.value, dtype)


def test_forms_of_input() -> None:
    flat = keras_batch_norm()
    expected = normkit.port(flat, "keras", "torch").state
    variables = [Variable(path, value) for path, value in flat.items()]
    nested = {"bn": {path.partition("/")[2]: value for path, value in flat.items()}}
    for form in (variables, nested, {f"{path}:0": value for path, value in flat.items()}):
        ported = normkit.port(form, "keras", "torch").state
        assert all(torch.equal(ported[name], value) for name, value in expected.items())
    arrays = {"weight": np.ones(2), "bias": np.ones(2), "running_mean": np.ones(2), "running_var": np.ones(2)}
    assert "layers.1.weight" in normkit.port({"layers": [{}, arrays]}, "mlx", "torch").state
    tree = {("params", "bn", "scale"): np.ones(2), ("params", "bn", "bias"): np.ones(2)}
    assert set(normkit.port(tree, "flax", "torch").state) == {"bn.weight", "bn.bias"}
    nodes = {"/1/BatchNormalization": {"scale": np.ones(2), "B": np.ones(2)}}
    ported = normkit.port(nodes, "onnx", "torch", names={"/1/BatchNormalization": "1"}).state
    assert set(ported) == {"1.weight", "1.bias"}


def test_half_precision() -> None:
    ported = normkit.port({"weight": torch.ones(2).bfloat16(), "bias": torch.ones(2).half()}, "torch", "keras").state
    assert [ported[name].dtype for name in ("gamma", "beta")] == [np.float32, np.float16]


def test_the_result_is_a_copy() -> None:
    state = keras_batch_norm()
    before = state["bn/gamma"].copy()
    normkit.port(state, "keras", "torch").state["bn.weight"].zero_()
    normkit.port(state, "keras", "keras").state["bn/gamma"][:] = 0
    np.testing.assert_array_equal(state["bn/gamma"], before)
    tensors = {"weight": torch.ones(2), "bias": torch.ones(2)}
    normkit.port(tensors, "torch", "torch").state["weight"].zero_()
    assert tensors["weight"].tolist() == [1, 1]


ONES = np.ones(2)


@pytest.mark.parametrize(
    ("state", "arguments", "says"),
    [
        ({}, {"source": "jax"}, "`source` must be one of torch, keras, flax, mlx, onnx, not 'jax'"),
        ({}, {}, "found no norm among the arrays .there are none.: is it Keras's state"),
        ({"a/kernel": ONES}, {}, "it is no norm's"),
        ({"a/gamma": ONES, "a/beta": np.ones(3)}, {}, "its arrays differ in shape"),
        ({"a/gamma": np.ones((2, 3)), "a/beta": np.ones((2, 3))}, {}, "several axes.*permute it by hand"),
        ({"a/moving_mean": ONES, "a/gamma": ONES}, {}, "there is one alone"),
        ([ONES, ONES], {}, "model.weights"),
        (3, {"source": "torch"}, "expected a mapping of names to arrays; got int"),
        ({"a/gamma": "x"}, {}, "a/gamma is a str"),
        ({"a/gamma": ONES}, {"names": {"b": "c"}}, "`names` names 'b', which is no norm; the norms are a"),
        ({"a/gamma": ONES}, {"kinds": {"a": "batsch"}}, "`kinds` must be among"),
        ({"a/gamma": ONES}, {"count": {"b": 8}}, "`count` names 'b'"),
        ({"a/gamma": ONES}, {"count": 1}, "`count` must be 2 or more"),
        ({"a/gamma": ONES, "b/gamma": ONES}, {"names": {"a": "b"}}, "two layers the same name"),
        ({"params/a/scale": ONES, "a/scale": ONES}, {"source": "flax"}, "two arrays of the name a/scale"),
    ],
)
def test_what_cannot_be_ported_is_refused(state: Any, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        normkit.port(state, **{"source": "keras", "to": "torch", **arguments})


def test_to_dict_holds_json_types() -> None:
    import json

    ported = normkit.port(keras_batch_norm(), "keras", "torch")
    tree = json.loads(json.dumps(ported.to_dict()))
    assert tree["layers"][0]["arguments"] == {"eps": 0.001, "momentum": 0.01}
