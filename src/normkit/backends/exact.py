"""Gradients of torch's operations that stay right however often they are differentiated.

The second derivatives of torch's batch_norm and layer_norm take the saved mean and rstd for constants, so a third
derivative is silently wrong. Their first derivatives are right. So the operation runs as it is, and only where its
backward pass is itself recorded (create_graph=True) is the gradient computed by plain operations instead.
"""

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit.backends import eager
from normkit.spec import Norm

# Up to this many numbers the input is kept alive for the second derivative; a larger one only as long as autograd does.
_SMALL = 65536
_OURS = -1  # our key among the hooks of a tensor, whose own count from 0


class _Hooks(dict[int, Any]):
    """What a tensor keeps its hooks in."""

    __slots__ = ("__weakref__",)


class _Hook(partial[None]):
    """A hook that is none of the user's business where a tensor is saved."""

    __slots__ = ()
    __torch_unserializable__ = True


def make_exact(
    y: Tensor,
    x: Tensor,
    kind: str,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    normalized_shape: Sequence[int] = (),
) -> None:
    """Let the gradient of y, torch's own normalization of x by its statistics, be differentiated again.

    The smallest inputs feel every step of this. So it hangs on the tensor, which takes half the time of a hook on the
    operation, and what can wait until a second derivative is asked for does.
    """
    if is_compiling():
        return
    held = weakref.ref(x) if x.numel() > _SMALL else x
    hook = _Hook(_prepare, held, kind, normalized_shape, weight, bias, eps)
    node: Any = y.grad_fn
    if "Norm" in type(node).__name__:
        hooks = _Hooks()  # what Tensor.register_hook does
        hooks[_OURS] = hook
        y._backward_hooks = hooks
        node._register_hook_dict(y)
        return
    node = node.next_functions[0][0]  # a reshape may follow the operation
    if "Norm" in type(node).__name__:  # else it is made of plain operations already
        node.register_prehook(hook)


def _prepare(
    held: "Tensor | weakref.ref[Tensor]",
    kind: str,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    _dy: Any,
) -> None:
    """Where gradients are to be differentiated, let others stand in for those of the operation about to run."""
    if not torch.is_grad_enabled():
        return

    def replace(gradients: tuple[Tensor | None, ...], outer: tuple[Tensor, ...]) -> tuple[Tensor | None, ...] | None:
        handle.remove()
        if not torch.is_grad_enabled():
            return None
        x = held() if isinstance(held, weakref.ref) else held
        if x is None:
            raise RuntimeError(
                "a normalization expected its input to be alive for a second derivative; it was freed, as gradient "
                "checkpointing does: compute this part without checkpointing, or with normkit.use_backend('eager')"
            )
        norm = Norm(kind, normalized_shape=tuple(normalized_shape))
        return _differentiable(gradients, outer[0], x, norm, weight, bias, eps)

    handle = torch._C._current_autograd_node().register_hook(replace)


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
