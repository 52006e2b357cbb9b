"""Layer × feature: what people do with a layer goes on working, with the numbers of its twin in torch.nn."""

import copy
import io
import pickle
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrizations, parametrize
from torch.optim import swa_utils
from torch.utils.checkpoint import set_checkpoint_early_stop

import normkit
from tests.torch.torch_layers import LAYERS, Checkpointed, Layer, assert_same, step

FEATURES: dict[str, Callable[[Layer], None]] = {}


def feature(function: Callable[[Layer], None]) -> Callable[[Layer], None]:
    """A column of the table."""
    FEATURES[function.__name__] = function
    return function


@feature
def training(row: Layer) -> None:
    """Three steps and an evaluation."""
    ours, twin = row.ours(), row.twin()
    for seed in range(3):
        assert_same(step(ours, row.input(seed)), step(twin, row.input(seed)))
    assert_same(step(ours.eval(), row.input(9)), step(twin.eval(), row.input(9)))


@feature
def deepcopy(row: Layer) -> None:
    """A copy computes the same and shares nothing."""
    first = row.ours()
    step(first, row.input())
    second = copy.deepcopy(first)
    before = {name: value.clone() for name, value in first.state_dict().items()}
    found = step(second, row.input(1))
    assert_same(dict(first.state_dict()), before)
    assert_same(found, step(first, row.input(1)))


@feature
def pickled(row: Layer) -> None:
    """pickle and torch.save, whole and as state_dict, also into torch's twin."""
    layer, file = row.ours(), io.BytesIO()
    step(layer, row.input())
    for other in (pickle.loads(pickle.dumps(layer)), _saved(layer, file)):
        assert type(other) is type(layer)
        assert_same(step(other, row.input(1)), step(copy.deepcopy(layer), row.input(1)))
    twin = row.twin()
    twin.load_state_dict(layer.state_dict())
    assert_same(step(twin, row.input(2)), step(layer, row.input(2)))


def _saved(layer: nn.Module, file: io.BytesIO) -> nn.Module:
    torch.save(layer, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


@feature
def shared_memory(row: Layer) -> None:
    """share_memory_ keeps the numbers, and running statistics move in shared memory."""
    layer = row.ours()
    assert layer.share_memory() is layer
    assert_same(step(layer, row.input()), step(row.twin(), row.input()))
    assert all(tensor.is_shared() for tensor in layer.state_dict().values())


@feature
def meta_device(row: Layer) -> None:
    """Shapes on the meta device, then to_empty and load_state_dict."""
    layer, source = row.ours().to("meta"), row.ours()
    assert layer(row.input().to("meta")).shape == row.shape
    layer = layer.to_empty(device="cpu")
    layer.load_state_dict(source.state_dict())
    assert_same(step(layer, row.input()), step(source, row.input()))


@feature
def default_device(row: Layer) -> None:
    """The device that new tensors get by default makes no difference to those that are there."""
    layer, other, x = row.ours(), row.ours(), row.input().requires_grad_()
    dy = torch.linspace(-1.0, 1.3, x.numel(), dtype=x.dtype).view(x.shape)
    expected = torch.autograd.grad(other(x), [x, *other.parameters()], dy)
    with torch.device("meta"):
        found = torch.autograd.grad(layer(x), [x, *layer.parameters()], dy, create_graph=True)
        twice = torch.autograd.grad(found[0].square().sum(), x)
    assert_same(dict(enumerate(found)), dict(enumerate(expected)))
    assert twice[0].device.type == "cpu"
    assert_same(dict(layer.named_buffers()), dict(other.named_buffers()))


@feature
def tied_weights(row: Layer) -> None:
    """One layer in two places, and one parameter in two layers."""
    results = []
    for layer, other in ((row.ours(), row.ours()), (row.twin(), row.twin())):
        for name, parameter in list(layer.named_parameters()):
            setattr(other, name, parameter)
        results.append(step(nn.Sequential(layer, layer, other), row.input()))
    assert_same(*results)


@feature
def parametrized(row: Layer) -> None:
    """A parametrized weight."""
    if row.ours().weight is None:  # nothing to parametrize, in torch neither
        return
    layers = row.ours(), row.twin()
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", nn.Softplus())
    assert_same(*(step(layer, row.input()) for layer in layers))
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight")
    assert_same(*(step(layer, row.input(1)) for layer in layers))


@feature
def hooks(row: Layer) -> None:
    """Forward, pre-forward and full backward hooks are called as torch calls them."""
    logs = []
    for layer in (row.ours(), row.twin()):
        log: list[Tensor] = []
        layer.register_forward_pre_hook(lambda module, inputs, log=log: log.append(inputs[0]))
        layer.register_forward_hook(lambda module, inputs, output, log=log: log.append(output))
        layer.register_full_backward_hook(_logs_gradients(log))
        step(layer, row.input())
        logs.append({str(index): value.detach() for index, value in enumerate(log)})
    assert len(logs[0]) == 4
    assert_same(*logs)


def _logs_gradients(log: list[Tensor]) -> Callable[..., None]:
    return lambda module, dx, dy: log.extend([*dx, *dy])


@feature
def checkpointed(row: Layer) -> None:
    """Checkpointing gives the same gradients, and torch's running statistics; the option gives those of one pass."""
    for reentrant in (False, True):
        for is_last, stops_early in ((False, True), (True, False), (True, True)):
            results = []
            for layer in (row.ours(), row.twin()):
                block = layer if is_last else nn.Sequential(layer, nn.Sigmoid())
                with set_checkpoint_early_stop(stops_early):
                    results.append(step(Checkpointed(block, {"use_reentrant": reentrant}), row.input()))
            if row.name.startswith("InstanceNorm") and is_last and stops_early:
                # torch stops a recomputation once it has what it needs: before its instance norm has moved the running
                # statistics, and after the kernels have
                results = [{k: v for k, v in found.items() if "running" not in k} for found in results]
            assert_same(*results)
    layer = row.ours()
    once = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), normkit.no_stats_update(layer))}
    plain = step(nn.ModuleDict({"layer": row.twin()})["layer"], row.input())
    found = step(Checkpointed(layer, once), row.input())
    assert_same({name.removeprefix("layer."): value for name, value in found.items()}, plain)


@feature
def averaged(row: Layer) -> None:
    """swa_utils: an averaged model, and update_bn."""
    results = []
    for layer in (row.ours(), row.twin()):
        average = swa_utils.AveragedModel(layer)
        average.update_parameters(layer)
        swa_utils.update_bn([row.input(seed) for seed in range(3)], average)
        results.append(step(average.eval(), row.input(7)))
    assert_same(*results)


@feature
def inference_mode(row: Layer) -> None:
    """No graph, the same numbers, running statistics too."""
    ours, twin = row.ours(), row.twin()
    for mode in (True, False):
        with torch.inference_mode():
            y = ours.train(mode)(row.input())
            assert y.is_inference()
            torch.testing.assert_close(y, twin.train(mode)(row.input()))
    assert_same(dict(ours.named_buffers()), dict(twin.named_buffers()))


@feature
def deterministic(row: Layer) -> None:
    """use_deterministic_algorithms: nothing is refused, two runs give the same bits, and the twin's numbers."""
    torch.use_deterministic_algorithms(True)
    try:
        first, second, twin = (step(layer, row.input()) for layer in (row.ours(), row.ours(), row.twin()))
    finally:
        torch.use_deterministic_algorithms(False)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert_same(first, twin)


@feature
def called_with_other_tensors(row: Layer) -> None:
    """functional_call with other parameters and buffers, whose running statistics move, and not the layer's."""
    results = []
    for layer in (row.ours(), row.twin()):
        before = {name: value.clone() for name, value in layer.state_dict().items()}
        others = {name: value.detach() * 2 for name, value in (*layer.named_parameters(), *layer.named_buffers())}
        for name, parameter in layer.named_parameters():
            others[name] = (parameter.detach() * 2).requires_grad_()
        x = row.input().requires_grad_()  # torch's group norm of a channels-last input crashes without
        y = functional_call(layer, others, (x,))
        names = ["x", *(name for name, _ in layer.named_parameters())]
        gradients = torch.autograd.grad(y.sin().sum(), [x, *(others[name] for name in names[1:])])
        found = {f"d{name}": gradient for name, gradient in zip(names, gradients, strict=True)}
        results.append({"y": y.detach(), **found, **{name: others[name].detach() for name in others}})
        assert_same(dict(layer.state_dict()), before)
    assert_same(*results)


@feature
def autocast(row: Layer) -> None:
    """The types and numbers that torch gives under autocast on the CPU, float32 layers and inputs in both types."""
    for dtype in (torch.float32, torch.bfloat16):
        found = []
        for layer in (row.ours().float(), row.twin().float()):
            with torch.autocast("cpu", torch.bfloat16), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's rms_norm warns of a slow path
                found.append(_outcome(layer, row.input().to(dtype)))
        assert type(found[0]) is type(found[1])
        if isinstance(found[0], Tensor):
            torch.testing.assert_close(*found, rtol=2e-2, atol=2e-2)


def _outcome(layer: nn.Module, x: Tensor) -> Tensor | RuntimeError:
    try:
        return layer(x).detach()
    except RuntimeError as error:
        return error


@feature
def torchscript(row: Layer) -> None:
    """torch.jit.trace works; torch.jit.script is refused, in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = row.ours().eval()
        traced = torch.jit.trace(layer, row.input())
        torch.testing.assert_close(traced(row.input(1)), layer(row.input(1)))
        words = rf"normkit's {type(layer).__name__}: use torch\.compile or torch\.export, or script .*restored"
        for model in (layer, nn.Sequential(nn.Sequential(nn.Sigmoid(), layer))):
            with pytest.raises(RuntimeError, match=words):
                torch.jit.script(model)


@feature
def symbolically_traced(row: Layer) -> None:
    """torch.fx records a layer as one call of the module; numbers and buffers are the twin's."""
    model, twin = nn.Sequential(row.ours(), nn.Sigmoid()), nn.Sequential(row.twin(), nn.Sigmoid())
    traced = torch.fx.symbolic_trace(model)
    assert [(node.op, node.target) for node in traced.graph.nodes][1:3] == [("call_module", "0"), ("call_module", "1")]
    assert_same(step(traced, row.input()), step(twin, row.input()))
    assert_same(step(traced.eval(), row.input(1)), step(twin.eval(), row.input(1)))


@feature
def copied_to_another_type(row: Layer) -> None:
    """float(), half() and bfloat16() move parameters and buffers; results are right to the type's rounding."""
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 4e-2), (torch.float16, 1e-2)):
        ours, twin = row.ours().to(dtype), row.twin().to(dtype)
        x = row.input().to(dtype)
        found = step(ours, x)
        assert {name: value.dtype for name, value in found.items()} == {
            name: value.dtype for name, value in step(twin, x).items()
        }
        # held against float64: in bfloat16 torch's own gradients are up to 10% of the largest away from it
        exact = step(row.twin().to(dtype).double(), x.double())
        for name, value in step(row.twin().to(dtype), x).items():
            ours_off, torchs_off = ((each.double() - exact[name]).abs().max() for each in (found[name], value))
            assert ours_off <= max(tolerance * max(1.0, float(exact[name].abs().max())), float(torchs_off)), name


@feature
def accelerated(row: Layer) -> None:
    """accelerate and restore on torch's twin inside a model."""
    model, reference = nn.Sequential(row.twin()), nn.Sequential(row.twin())
    before = type(model[0]), set(vars(model[0]))
    summary = normkit.accelerate(model)
    assert len(summary.swapped) == 1
    assert type(model[0]).forward is not before[0].forward or row.name.startswith("InstanceNorm")
    assert_same(step(model, row.input()), step(reference, row.input()))
    normkit.restore(model)
    assert (type(model[0]), set(vars(model[0]))) == before


@pytest.fixture(params=["auto", "numba"])
def _backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """torch's own operations, which auto takes for inputs as small as these, and the kernels where they can."""
    refused = {"meta_device", "autocast", "torchscript", "symbolically_traced"}
    if request.param == "numba" and request.getfixturevalue("column") in refused:
        pytest.skip("the kernels are never chosen for it")
    with normkit.use_backend(request.param):
        yield


@pytest.mark.usefixtures("_backend")
@pytest.mark.parametrize("column", FEATURES)
@pytest.mark.parametrize("name", LAYERS)
def test_table(name: str, column: str) -> None:
    FEATURES[column](LAYERS[name])


def test_spectral_norm_of_torch_on_a_layer_is_kept() -> None:
    layers = normkit.LayerNorm((3, 5)).double(), nn.LayerNorm((3, 5)).double()
    x = torch.randn(4, 3, 5, dtype=torch.float64)
    for layer in layers:
        torch.manual_seed(0)
        parametrizations.spectral_norm(layer)
    torch.testing.assert_close(layers[0](x), layers[1](x))
