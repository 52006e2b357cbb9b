"""Gradients of torch's operations that stay right however often they are differentiated.

The second derivatives of torch's batch_norm and layer_norm take the saved mean and rstd for constants, so a third
derivative is silently wrong. Their first derivatives are right. So the operation runs as it is, and only where its
backward pass is itself recorded (create_graph=True) is the gradient computed by plain operations instead.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from normkit.backends import eager
from normkit.spec import Norm

# Up to this many numbers the input is kept alive for the second derivative; a larger one only as long as autograd does.
_SMALL = 65536


def make_exact(y: Tensor, x: Tensor, norm: Norm, weight: Tensor | None, bias: Tensor | None, eps: float) -> None:
    """Let the gradient of y, torch's own normalization of x by its statistics, be differentiated again."""
    node: Any = y.grad_fn
    for _ in range(3):  # a reshape may follow the operation
        if node is None or "Norm" in node.name():
            break
        node = node.next_functions[0][0]
    else:
        return  # made of plain operations already
    if node is None:
        return
    alive: Callable[[], Tensor | None] = weakref.ref(x) if x.numel() > _SMALL else lambda: x

    def replace(gradients: tuple[Tensor | None, ...], outer: tuple[Tensor, ...]) -> tuple[Tensor | None, ...] | None:
        if not torch.is_grad_enabled():
            return None
        source = alive()
        if source is None:
            raise RuntimeError(
                "a normalization expected its input to be alive for a second derivative; it was freed, as gradient "
                "checkpointing does: compute this part without checkpointing, or with normkit.use_backend('eager')"
            )
        return _differentiable(gradients, outer[0], source, norm, weight, bias, eps)

    node.register_hook(replace)


def _differentiable(
    gradients: tuple[Tensor | None, ...],
    dy: Tensor,
    x: Tensor,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
) -> tuple[Tensor | None, ...]:
    """The gradients of torch's operation, whose input is a reshaped x for two of the norms."""
    if norm.kind == "instance":
        samples, channels, *space = x.shape
        x = x.reshape(1, samples * channels, *space)
        weight, bias = (None if p is None else p.repeat(samples) for p in (weight, bias))
        norm = Norm("batch")
    elif norm.kind == "channel":
        norm = Norm("layer", normalized_shape=(x.shape[1],))
        x = x.permute(0, *range(2, x.dim()), 1)
    inputs = [(x, weight, bias)[index] for index, gradient in enumerate(gradients[:3]) if gradient is not None]
    y = eager.normalize(x, norm, weight, bias, eps, None, True)
    found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))  # type: ignore[arg-type]
    return tuple(None if gradient is None else next(found) for gradient in gradients)
