"""Each back end that is forced, under torch.func and with batches of gradients: the right numbers, or the reason."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import grad, hessian, jacfwd, jacrev, vmap

import normkit
from normkit import functional as F

# torch's own, of the rules of forward mode that it scripts
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")

W, B = torch.linspace(0.5, 2.0, 4, dtype=torch.float64), torch.linspace(-1.0, 1.0, 4, dtype=torch.float64)
MASK = torch.arange(5) < torch.tensor([[3], [4], [5]])
Function = Callable[[Tensor], Tensor]
NORMS: dict[str, Function] = {
    "batch": lambda x: F.batch_norm(x, None, None, W, B, training=True),
    "batch, evaluation": lambda x: F.batch_norm(x, B, W, W, B),
    "layer": lambda x: F.layer_norm(x, (5,)),
    "rms": lambda x: F.rms_norm(x, (5,), eps=1e-3),
    "group": lambda x: F.group_norm(x, 2, W, B),
    "instance": lambda x: F.instance_norm(x, None, None, W, B),
    "channel": lambda x: F.channel_norm(x, W, B),
    "masked": lambda x: F.batch_norm(x, None, None, W, B, training=True, mask=MASK),
}


def loss(f: Function) -> Function:
    return lambda x: f(x).sin().sum()


TRANSFORMS: dict[str, Callable[[Function, Tensor], Any]] = {
    "jacrev": lambda f, x: jacrev(f)(x[0]),
    "jacfwd": lambda f, x: jacfwd(f)(x[0]),
    "vmap of jacrev": lambda f, x: vmap(jacrev(f))(x),
    "vmap of grad": lambda f, x: vmap(grad(loss(f)))(x),
    "hessian": lambda f, x: hessian(loss(f))(x[0]),
}


def inputs() -> Tensor:
    return torch.randn(2, 3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("norm", "transform"),
    [*((norm, "vmap of jacrev") for norm in NORMS), *(("batch", transform) for transform in TRANSFORMS)],
)
def test_forced_back_ends_under_torch_func(norm: str, transform: str) -> None:
    run, x = TRANSFORMS[transform], inputs()
    with normkit.use_backend("eager"):
        expected = run(NORMS[norm], x)
    for backend in ("auto", "aten"):
        with normkit.use_backend(backend):
            torch.testing.assert_close(run(NORMS[norm], x), expected)
    with (
        normkit.use_backend("numba"),
        pytest.raises(RuntimeError, match=r"forced, but torch\.func or forward-mode differentiation is active"),
    ):
        run(NORMS[norm], x)


def test_a_third_derivative_by_torch_func_is_right() -> None:
    """torch's own operation gives a wrong one, so plain operations stand in for it."""
    x = inputs()[0, :, :2, 0]

    def third(x: Tensor) -> Any:
        return jacrev(hessian(loss(lambda x: F.batch_norm(x, None, None, training=True))))(x)

    with normkit.use_backend("eager"):
        expected = third(x)
    with normkit.use_backend("aten"):
        torch.testing.assert_close(third(x), expected)


@pytest.mark.parametrize("backend", ["auto", "aten", "eager", "numba"])
@pytest.mark.parametrize("norm", NORMS)
def test_batches_of_gradients(norm: str, backend: str) -> None:
    """torch.autograd.grad with is_grads_batched, as jacobian(vectorize=True) uses it, is one gradient after another."""
    x = inputs()[0].requires_grad_()
    dys = torch.randn(4, *x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))
    with normkit.use_backend(backend):
        (found,) = torch.autograd.grad(NORMS[norm](x), x, dys, is_grads_batched=True)
        expected = [torch.autograd.grad(NORMS[norm](x), x, dy)[0] for dy in dys]
    torch.testing.assert_close(found, torch.stack(expected))


def test_a_batch_of_gradients_of_a_layer_with_parameters() -> None:
    layer, x = normkit.BatchNormAct2d(4).double(), inputs().transpose(1, 2)
    dys = torch.randn(3, *x.shape, dtype=x.dtype)
    with normkit.use_backend("numba"):
        found = torch.autograd.grad(layer(x), list(layer.parameters()), dys, is_grads_batched=True)
        for number, dy in enumerate(dys):
            expected = torch.autograd.grad(layer(x), list(layer.parameters()), dy)
            torch.testing.assert_close(tuple(gradient[number] for gradient in found), expected)
