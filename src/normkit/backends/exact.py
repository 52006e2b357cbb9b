"""Gradients of torch's operations that stay right however often they are differentiated.

The second derivatives of torch's batch_norm and layer_norm take the saved mean and rstd for constants, so a third
derivative is silently wrong. Their first derivatives are right. So the operation runs as it is, and only where its
backward pass is itself recorded (create_graph=True) is the gradient computed by plain operations instead.
"""

from functools import lru_cache, partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.utils.checkpoint import CheckpointError, GraphExecGroup

from normkit.backends import eager
from normkit.spec import Norm


def make_exact(y: Tensor, eps: float) -> None:
    """Let the gradient of y, torch's own normalization of something by its statistics, be differentiated again.

    The smallest inputs feel every step of this. So it hangs on the result of the operation, which takes half the time
    of a hook on the operation, and asks the operation for its inputs only once a second derivative is wanted.
    """
    if is_compiling():
        return
    node: Any = y.grad_fn
    if "Norm" not in type(node).__name__:
        node = node.next_functions[0][0]  # a reshape may follow the operation
        if "Norm" not in type(node).__name__:
            return  # it is made of plain operations already
    node._register_hook_dict(_hooked(eps))


@lru_cache(maxsize=256)
def _hooked(eps: float) -> Tensor:
    """A tensor with our hook: what is hooked like it has the hook too, but none that its user finds or saves."""
    tensor = torch.empty(0)
    tensor._backward_hooks = {0: partial(_prepare, eps)}
    return tensor


def _prepare(eps: float, _dy: Any) -> None:
    """Where gradients are to be differentiated, let others stand in for those of the operation about to run."""
    if not torch.is_grad_enabled():
        return
    node, thread = torch._C._current_autograd_node(), get_ident()

    def replace(gradients: tuple[Tensor | None, ...], outer: tuple[Tensor, ...]) -> tuple[Tensor | None, ...] | None:
        if get_ident() != thread:  # which differentiates the same graph, with a hook of its own
            return None
        handle.remove()
        return _differentiable(node, gradients, outer[0], eps) if torch.is_grad_enabled() else None

    handle = node.register_hook(replace)


def _differentiable(
    node: Any, gradients: tuple[Tensor | None, ...], dy: Tensor, eps: float
) -> tuple[Tensor | None, ...]:
    """Gradients in place of those that an operation has found for its input, weight and bias."""
    try:
        x, weight = node._saved_input, node._saved_weight
    except CheckpointError:  # a checkpoint gives each tensor once in a pass, and in another group of passes anew
        with GraphExecGroup():
            x, weight = node._saved_input, node._saved_weight
    is_layer = hasattr(node, "_saved_normalized_shape")
    norm = Norm("layer", normalized_shape=tuple(node._saved_normalized_shape)) if is_layer else Norm("batch")
    bias = None if gradients[2] is None else torch.zeros_like(gradients[2], requires_grad=True)  # any number will do
    inputs = [(x, weight, bias)[index] for index, gradient in enumerate(gradients[:3]) if gradient is not None]
    y = eager.normalize(x, norm, weight, bias, eps, None, True)
    found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))  # type: ignore[arg-type]
    return tuple(None if gradient is None else next(found) for gradient in gradients)
