"""A backward pass does not hang on the running statistics, which other passes update in between.

torch.nn's own do: pytorch#13402 (wrong gradients), #22095, #65907, #73332, #110363, #175024 ("modified by an inplace
operation").
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.parallel import DistributedDataParallel

import normkit
from tests.distributed.ranks import run
from tests.torch.torch_layers import says_export

BACKENDS = ("auto", "numba", "aten", "eager")
# Sizes on both sides of where kernels begin.
LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "small batch norm": (lambda: normkit.BatchNorm2d(6), (4, 6, 5, 5)),
    "large batch norm": (lambda: normkit.BatchNorm2d(64), (32, 64, 36, 36)),
    "vectors": (lambda: normkit.BatchNorm1d(6), (40, 6)),
    "with an activation": (lambda: normkit.BatchNormAct2d(6), (4, 6, 5, 5)),
    "instance norm": (lambda: normkit.InstanceNorm2d(6, affine=True, track_running_stats=True), (4, 6, 5, 5)),
    "large instance norm": (
        lambda: normkit.InstanceNorm2d(64, affine=True, track_running_stats=True),
        (8, 64, 20, 20),
    ),
    "no affine": (lambda: normkit.BatchNorm2d(6, affine=False), (4, 6, 5, 5)),
}
LEARNING = [row for name, row in LAYERS.items() if name != "no affine"]
every_layer = pytest.mark.parametrize("name", LAYERS)
every_backend = pytest.mark.parametrize("backend", BACKENDS)


def layer_and_inputs(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    """A layer with statistics that are no longer the initial ones, an input and the gradient of its result."""
    make, shape = LAYERS[name]
    torch.manual_seed(1)
    layer, x, dy = make(), torch.randn(shape), torch.randn(shape)
    layer(torch.randn(shape) * 2 + 1)
    return layer, x.requires_grad_(), dy


def disturb(layer: nn.Module, x: Tensor, how: str) -> None:
    """Change the running statistics."""
    if how == "training step":
        layer.train()
        layer(x.detach() * 3 + 5)
    else:
        with torch.no_grad():
            for number, buffer in enumerate(layer.buffers()):
                buffer.mul_(number + 2).add_(1)


@every_backend
@every_layer
@pytest.mark.parametrize("how", ["training step", "edit in place"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "differentiated twice"])
def test_gradients_are_those_of_the_forward_pass(name: str, backend: str, how: str, mode: str, twice: bool) -> None:
    if name.startswith("large") and (backend != "auto" or twice):
        pytest.skip("the same code as for small inputs, and slow")
    found = []
    with normkit.use_backend(backend):
        for disturbed in (False, True):
            layer, x, dy = layer_and_inputs(name)
            y = layer.train(mode == "training")(x)
            if disturbed:
                disturb(layer, x, how)
            inputs = [x, *layer.parameters()]
            gradients = torch.autograd.grad(y.sin(), inputs, dy, create_graph=twice)
            if twice:
                total = sum((gradient.square().sum() for gradient in gradients), torch.zeros(()))
                gradients = torch.autograd.grad(total, inputs, allow_unused=True)
            found.append([torch.zeros(()) if gradient is None else gradient for gradient in gradients])
    for undisturbed, other in zip(*found, strict=True):
        torch.testing.assert_close(other, undisturbed, rtol=0.0, atol=0.0)


@every_backend
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_statistics_that_require_grad_are_refused_as_torch_does(mode: str, backend: str) -> None:
    for shape in ((4, 3, 2, 2), (16, 3, 128, 128)):
        for name in ("batch_norm", "instance_norm"):
            for which in (0, 1):
                statistics = [torch.zeros(3), torch.ones(3)]
                statistics[which].requires_grad_()
                with normkit.use_backend(backend), pytest.raises(RuntimeError, match=r"requires? grad"):
                    getattr(normkit.functional, name)(torch.randn(shape), *statistics, None, None, mode == "training")
                with normkit.use_backend(backend), torch.no_grad():
                    getattr(normkit.functional, name)(torch.randn(shape), *statistics, None, None, mode == "training")


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # of torch's own forward mode
@pytest.mark.parametrize("name", ["batch_norm", "instance_norm"])
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_forward_mode_takes_statistics_for_constants_as_torch_does(name: str, mode: str) -> None:
    x = torch.randn(4, 3, 5)
    for which in (0, 1):
        with forward_ad.dual_level():
            statistics = [torch.zeros(3), torch.ones(3)]
            statistics[which] = forward_ad.make_dual(statistics[which], torch.ones(3))
            y = getattr(normkit.functional, name)(x, *statistics, None, None, mode == "training")
            assert forward_ad.unpack_dual(y).tangent is None


def two_forwards_one_backward(rank: int) -> list[dict[str, Tensor | None]]:
    """Gradients of a step with two forward passes, of which DDP broadcasts the buffers before each."""
    found = []
    for make, shape in LEARNING:
        torch.manual_seed(2)
        model = DistributedDataParallel(nn.Sequential(nn.Identity(), make()))  # which broadcasts buffers
        torch.manual_seed(3 + rank)
        first, second = torch.randn(shape).requires_grad_(), torch.randn(shape)
        (model(first).sin().mean() + model(second).square().mean()).backward()
        found.append({"x": first.grad, **{name: p.grad for name, p in model.named_parameters()}})
    return found


@pytest.mark.slow  # starts two processes
def test_two_forwards_and_one_backward_under_ddp() -> None:
    ranks = run(two_forwards_one_backward, 2)
    for index, (make, shape) in enumerate(LEARNING):
        expected: dict[str, Tensor] = {}
        for rank in range(2):
            torch.manual_seed(2)
            layer = make()
            torch.manual_seed(3 + rank)
            first, second = torch.randn(shape).requires_grad_(), torch.randn(shape)
            (layer(first).sin().mean() + layer(second).square().mean()).backward()
            assert first.grad is not None
            torch.testing.assert_close(ranks[rank][index]["x"], first.grad)
            for key, parameter in layer.named_parameters():
                assert parameter.grad is not None
                expected[key] = expected.get(key, torch.zeros(())) + parameter.grad / 2
        for rank in range(2):
            for key, value in expected.items():
                torch.testing.assert_close(ranks[rank][index][f"module.1.{key}"], value)


@pytest.mark.parametrize("autocast", [False, True], ids=["our operators", "torch's"])
def test_a_compiled_layer_keeps_copies_too(autocast: bool) -> None:
    if says_export():
        pytest.skip("this torch says that it exports whenever it compiles: its operation alone is in the graph")
    found = []
    for disturbed in (False, True):
        layer, x, dy = layer_and_inputs("small batch norm")
        compiled: Any = torch.compile(layer, backend="aot_eager")
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = compiled.eval()(x)
            if disturbed:
                compiled.train()(x.detach() * 3 + 5)
        found.append(torch.autograd.grad(y, [x, *layer.parameters()], dy))
    for undisturbed, other in zip(*found, strict=True):
        torch.testing.assert_close(other, undisturbed, rtol=0.0, atol=0.0)
