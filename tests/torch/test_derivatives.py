"""Every way to differentiate, for every layer and back end: right, or refused; never silently wrong."""

import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jvp, vmap
from torch.utils.checkpoint import set_checkpoint_early_stop

import normkit
from tests.torch.torch_layers import DTYPE, LAYERS, Checkpointed, Layer

TRACKED = [name for name, row in LAYERS.items() if getattr(row.ours(), "running_mean", None) is not None]


@pytest.fixture(params=["auto", "numba", "aten", "eager"])
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each back end; auto takes torch's own operations for inputs as small as these."""
    with normkit.use_backend(request.param):
        yield request.param


def plain(layer: nn.Module, x: Tensor) -> Tensor:
    """The same in plain operations."""
    with normkit.use_backend("eager"):
        return layer(x)


def direction(like: Tensor, first: float) -> Tensor:
    """Numbers to multiply by that are all different."""
    return torch.linspace(first, first + 1.3, like.numel(), dtype=like.dtype).view(like.shape)


def derivatives(layer: nn.Module, x: Tensor) -> list[list[Tensor]]:
    """First, second and third derivatives by the input and the parameters, along fixed directions."""
    inputs = [x, *layer.parameters()]
    value = (layer(x).sin() * direction(x, 0.3)).sum()
    found = []
    for order in range(3):
        gradients = torch.autograd.grad(value, inputs, create_graph=True, allow_unused=True)
        used = [torch.zeros_like(x) if g is None else g for g, x in zip(gradients, inputs, strict=True)]
        found.append([g.detach() for g in used])
        value = sum(((g * direction(g, -0.7 + order)).sum() + g.square().sum() for g in used), torch.zeros(()))
    return found


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_three_derivatives(name: str, mode: bool, backend: str) -> None:
    row = LAYERS[name]
    layer = row.ours().train(mode)
    found = derivatives(layer, row.input().requires_grad_())
    with normkit.use_backend("eager"):
        expected = derivatives(row.ours().train(mode), row.input().requires_grad_())
    for mine, theirs in zip(found, expected, strict=True):
        for value, truth in zip(mine, theirs, strict=True):
            torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-9 * max(1.0, float(truth.abs().max())))


@pytest.mark.parametrize("name", ["BatchNorm2d", "LayerNorm", "RMSNorm", "GroupNorm", "InstanceNorm1d", "LayerNorm2d"])
def test_plain_operations_against_finite_differences(name: str, backend: str) -> None:
    row = LAYERS[name]
    layer = row.ours()
    x = row.input()[:2].requires_grad_()
    assert torch.autograd.gradcheck(layer, (x,))
    assert torch.autograd.gradgradcheck(layer, (x,))


def test_a_large_input_that_only_autograd_keeps_is_differentiated_twice() -> None:
    x = torch.randn(300, 300, dtype=DTYPE, requires_grad=True)
    found = []
    for name in ("aten", "eager"):
        with normkit.use_backend(name):
            y = normkit.BatchNorm1d(300).to(DTYPE)(x * 2.0)
            (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
            found.append(torch.autograd.grad(first.square().sum(), x)[0])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("stops_early", [True, False])
@pytest.mark.parametrize("name", ["BatchNorm2d", "LayerNorm", "InstanceNorm1d", "LayerNorm2d"])
def test_a_checkpointed_layer_is_differentiated_three_times(name: str, stops_early: bool, backend: str) -> None:
    row = LAYERS[name]
    layer = row.ours()
    block = nn.Sequential(nn.Sigmoid(), layer, nn.Tanh())
    expected = derivatives(copy.deepcopy(block), row.input().requires_grad_())
    with set_checkpoint_early_stop(stops_early):
        found = derivatives(Checkpointed(block, {"use_reentrant": False}), row.input().requires_grad_())
    for mine, theirs in zip(found, expected, strict=True):
        for value, truth in zip(mine, theirs, strict=True):
            torch.testing.assert_close(value, truth, rtol=1e-9, atol=1e-9 * max(1.0, float(truth.abs().max())))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, of the rules that it scripts
@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("name", LAYERS)
def test_forward_mode(name: str, mode: bool) -> None:
    row = LAYERS[name]
    layer, x = row.ours().train(mode), row.input()
    tangent = direction(x, -0.4)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(x, tangent))).tangent
    step = 1e-6
    expected = (plain(layer, x + step * tangent) - plain(layer, x - step * tangent)) / (2 * step)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-6, atol=1e-6)
    untracked = stateless(row).train(mode)
    _, pushed, *_ = jvp(lambda value: untracked(value), (x,), (tangent,))
    if mode:
        torch.testing.assert_close(pushed, found)


def stateless(row: Layer) -> nn.Module:
    """A layer that changes no buffer: torch.func forbids that, ours and torch's own alike."""
    layer: Any = row.ours()
    if getattr(layer, "running_mean", None) is not None:
        layer.running_mean = layer.running_var = layer.num_batches_tracked = None
        layer.track_running_stats = False
    return layer


@pytest.mark.parametrize("name", LAYERS)
def test_func_grad_and_functional_call(name: str) -> None:
    row = LAYERS[name]
    layer, x = stateless(row), row.input()
    parameters = {key: value.detach() for key, value in layer.named_parameters()}

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return (functional_call(layer, parameters, (x,)).sin() * direction(x, 0.3)).sum()

    found = grad(loss, argnums=(0, 1))(parameters, x)
    leaf = x.clone().requires_grad_()
    (plain(layer, leaf).sin() * direction(x, 0.3)).sum().backward()
    torch.testing.assert_close(found[1], leaf.grad)
    for key, value in layer.named_parameters():
        torch.testing.assert_close(found[0][key], value.grad)


@pytest.mark.parametrize("name", LAYERS)
def test_per_sample_gradients(name: str) -> None:
    row = LAYERS[name]
    layer = row.ours().eval() if "untracked" not in name else stateless(row)
    x = row.input()
    parameters = {key: value.detach() for key, value in layer.named_parameters()}
    batches = torch.stack([row.input(seed) for seed in range(3)])

    def loss(parameters: dict[str, Tensor], x: Tensor) -> Tensor:
        return (functional_call(layer, parameters, (x,)).sin() * direction(x, 0.3)).sum()

    by_parameters, by_input = vmap(grad(loss, argnums=(0, 1)), in_dims=(None, 0))(parameters, batches)
    for index, x in enumerate(batches):
        layer.zero_grad()
        leaf = x.clone().requires_grad_()
        (plain(layer, leaf).sin() * direction(x, 0.3)).sum().backward()
        torch.testing.assert_close(by_input[index], leaf.grad)
        for key, value in layer.named_parameters():
            torch.testing.assert_close(by_parameters[key][index], value.grad)


@pytest.mark.parametrize("name", TRACKED)
def test_vmap_refuses_to_change_running_statistics_as_torch_does(name: str) -> None:
    row = LAYERS[name]
    batches = torch.stack([row.input(seed) for seed in range(3)])
    for layer in (row.twin(), row.ours()):
        with pytest.raises((RuntimeError, ValueError), match=r"vmap|broadcast shape"):
            vmap(layer)(batches)


@pytest.mark.parametrize("name", LAYERS)
def test_vmap(name: str) -> None:
    row = LAYERS[name]
    layer = row.ours().eval()
    batches = torch.stack([row.input(seed) for seed in range(3)])
    expected = torch.stack([row.twin().eval()(x) for x in batches])
    torch.testing.assert_close(vmap(layer)(batches), expected)


@pytest.mark.parametrize("name", LAYERS)
def test_vmap_inside_a_compiled_graph(name: str) -> None:
    row = LAYERS[name]
    layer = row.ours().eval()
    batches = torch.stack([row.input(seed) for seed in range(3)])
    expected = torch.stack([row.twin().eval()(x) for x in batches])
    torch._dynamo.reset()
    torchs, ours = (
        torch.compile(lambda batches, one=one: vmap(lambda x: one(x))(batches), backend="eager", fullgraph=True)
        for one in (row.twin().eval(), layer)
    )
    try:
        torchs(batches)
    except torch._dynamo.exc.TorchRuntimeError:  # a group norm of channels-last memory
        with pytest.raises(torch._dynamo.exc.TorchRuntimeError):
            ours(batches)
    else:
        torch.testing.assert_close(ours(batches), expected)


@pytest.mark.parametrize("transform", [grad, lambda function: lambda x: vmap(grad(function))(x[None])[0]])
def test_gradients_inside_a_compiled_graph(transform: Callable[..., Callable[..., Tensor]]) -> None:
    layer, x = LAYERS["GroupNorm"].ours(), LAYERS["GroupNorm"].input()
    gradient = transform(lambda x: layer(x).sin().sum())
    torch._dynamo.reset()
    found = torch.compile(lambda x: gradient(x), backend="eager", fullgraph=True)(x)
    torch.testing.assert_close(found, gradient(x))


@pytest.mark.parametrize("randomness", ["error", "same", "different"])
def test_vmap_randomness_is_torchs(randomness: str) -> None:
    x = torch.ones(3, 4, 5, dtype=DTYPE)
    results = []
    for norm in (nn.LayerNorm(5), normkit.LayerNorm(5)):
        model = nn.Sequential(nn.Dropout(0.5), norm).to(DTYPE)
        torch.manual_seed(0)
        try:
            results.append(vmap(model, randomness=randomness)(x))
        except RuntimeError as error:
            results.append(str(error))
    if randomness == "error":
        assert results[0] == results[1]
        assert "randomness" in results[1]
    else:
        torch.testing.assert_close(*results)


@pytest.mark.parametrize("name", ["BatchNorm2d", "LayerNorm", "LayerNorm2d"])
def test_three_derivatives_where_the_result_is_overwritten_and_has_a_hook(name: str) -> None:
    row = LAYERS[name]
    seen: list[Tensor] = []

    def overwritten(x: Tensor, layer: nn.Module = row.ours()) -> Tensor:  # noqa: B008
        y = layer(x)
        y.register_hook(seen.append)
        return torch.nn.functional.softplus(y.mul_(1.5))

    found: list[Tensor] = []
    expected: list[Tensor] = []
    for results, backend in ((found, "auto"), (expected, "eager")):
        x = row.input().requires_grad_()
        with normkit.use_backend(backend):
            value = overwritten(x).square().sum()
            for _ in range(3):
                (gradient,) = torch.autograd.grad(value, x, create_graph=True)
                results.append(gradient.detach())
                value = (gradient * direction(x, 0.3)).sum() + gradient.square().sum()
    assert seen
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-8 * max(1.0, float(theirs.abs().max())))


def test_a_gradient_asked_for_many_times_leaves_nothing_behind() -> None:
    x = torch.randn(8, 4, dtype=DTYPE, requires_grad=True)
    y = normkit.BatchNorm1d(4).to(DTYPE)(x)
    rows = [torch.autograd.grad(y[0, channel], x, create_graph=True)[0] for channel in range(4)]
    y.grad_fn.register_hook(lambda *_: None)
    probe = y.grad_fn.register_hook(lambda *_: None)
    hooks = list(probe.hooks_dict_ref())
    assert len(hooks) == 2, "those of this test alone"
    (plainly,) = torch.autograd.grad(y[0, 3], x, retain_graph=True)
    torch.testing.assert_close(rows[3].detach(), plainly)


def test_threads_may_differentiate_one_graph_at_once() -> None:
    leaf = LAYERS["LayerNorm"].input().requires_grad_()
    with normkit.use_backend("aten"):
        value = (LAYERS["LayerNorm"].ours()(leaf).sin() * direction(leaf, 0.3)).sum()

    def third(_: int) -> Tensor:
        found = value
        for _order in range(3):
            found = torch.autograd.grad(found, leaf, create_graph=True)[0].square().sum()
        return found.detach()

    expected = third(0)
    with ThreadPoolExecutor(8) as pool:
        assert all(torch.equal(found, expected) for found in pool.map(third, range(200)))
