"""Gradients that stay right however often they are differentiated.

A gradient that is to be differentiated again is computed by plain operations: of kernels, whose backward pass autograd
does not see, and of torch's batch_norm and layer_norm, whose second derivatives take the saved mean and rstd for
constants, so that a third derivative is silently wrong.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from threading import get_ident
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit.backends import eager
from normkit.backends.call import Call
from normkit.backends.torch_internals import current_node, saved_by
from normkit.spec import Norm


def differentiable_gradients(
    plain: Callable[[Tensor | None], Tensor],
    x: Tensor,
    weight: Tensor | None,
    bias: tuple[torch.Size, torch.dtype] | None,
    needed: Sequence[bool],
    dy: Tensor,
) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight and bias, so that they can be differentiated again.

    Args:
        plain: Computes y by plain operations from x, weight and the bias that it is given.
        x: The input.
        weight: Or None.
        bias: Its shape and dtype; its values have no part in any gradient. None: there is none.
        needed: Which of the three gradients are; the others are None.
        dy: The gradient of y.
    """
    b = None if bias is None else torch.zeros(bias[0], dtype=bias[1], device=x.device, requires_grad=True)
    wanted = [tensor for tensor, need in zip((x, weight, b), needed, strict=False) if need and tensor is not None]
    with torch.enable_grad():  # which is off where a batch of gradients is asked for once
        found = iter(torch.autograd.grad(plain(b), wanted, dy, create_graph=True))
    return tuple(next(found) if need else None for need in needed[:3])


def fix_higher_derivatives(y: Tensor, eps: float) -> None:
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
    """Return a tensor with our hook: what is hooked like it has the hook too, but none that its user finds or saves."""
    tensor = torch.empty(0)
    tensor._backward_hooks = {0: partial(_prepare, eps)}
    return tensor


def _prepare(eps: float, _dy: Any) -> None:
    """Where gradients are to be differentiated, let others stand in for those of the operation about to run."""
    if not torch.is_grad_enabled():
        return
    node, thread = current_node(), get_ident()

    def replace(gradients: tuple[Tensor | None, ...], outer: tuple[Tensor, ...]) -> tuple[Tensor | None, ...] | None:
        if get_ident() != thread:  # which differentiates the same graph, with a hook of its own
            return None
        handle.remove()
        return _replacements(node, gradients, outer[0], eps) if torch.is_grad_enabled() else None

    handle = node.register_hook(replace)


def _replacements(node: Any, gradients: tuple[Tensor | None, ...], dy: Tensor, eps: float) -> tuple[Tensor | None, ...]:
    """Return gradients in place of those that an operation has found for its input, weight and bias."""
    x, weight, normalized_shape = saved_by(node)
    norm = Norm("batch") if normalized_shape is None else Norm("layer", normalized_shape=normalized_shape)
    bias = None if gradients[2] is None else (gradients[2].shape, gradients[2].dtype)
    needed = [gradient is not None for gradient in gradients]

    def plain(bias: Tensor | None) -> Tensor:
        return eager.normalize(Call(x, norm, weight, bias, eps))

    found = differentiable_gradients(plain, x, weight, bias, needed, dy)
    return (*found, *gradients[3:])
