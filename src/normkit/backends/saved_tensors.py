"""What a forward pass saves for its backward pass, and whether that gets the same.

Between the two passes a model may be converted, ``.data`` assigned or a storage resized, and hooks of
torch.autograd.graph.saved_tensors_hooks may unpack what they like. torch looks at none of it.
"""

from typing import Any

import torch
from torch import Tensor

from normkit.backends.addresses import describe, has_memory


def save_for_backward(ctx: Any, *tensors: Tensor | None) -> None:
    """Save tensors for the backward pass, and what they are."""
    ctx.save_for_backward(*tensors)
    ctx.forms = [None if tensor is None else _form(tensor) for tensor in tensors]


def saved_tensors(ctx: Any) -> tuple[Any, ...]:
    """Return the saved tensors, each None if it was.

    Raises:
        RuntimeError: one of them has become another, or has lost its memory.
    """
    tensors: tuple[Tensor | None, ...] = ctx.saved_tensors
    for tensor, form in zip(tensors, ctx.forms, strict=True):
        if tensor is None or (_form(tensor) == form and has_memory(tensor)):
            continue
        dtype, shape, on_cpu = form
        where = "the CPU" if on_cpu else "another device"
        raise RuntimeError(
            f"a backward pass expected {dtype} of shape {tuple(shape)} on {where}, as its forward pass saved it; got "
            f"{describe(tensor)}: convert a model or assign .data before the forward pass or after the backward pass, "
            "and let saved_tensors_hooks unpack what they packed"
        )
    return tensors


def _form(tensor: Tensor) -> tuple[torch.dtype, torch.Size, bool]:
    return tensor.dtype, tensor.shape, tensor.is_cpu  # a device takes longer to compare than all of this
