"""Addresses of tensors, and what is checked before a kernel gets one.

A kernel reads and writes where a record of addresses and sizes tells it to, and checks nothing. A tensor that was given
or saved may be something else by then: another dtype, fewer elements, less memory. What a pass allocates itself needs
no check.
"""

import torch
from torch import Tensor


def address(
    label: str,
    tensor: Tensor | None,
    numel: int,
    dtype: torch.dtype,
    memory_format: torch.memory_format = torch.contiguous_format,
) -> int:
    """Return where the elements of a tensor lie, one after the other; 0 for none.

    Args:
        label: What errors call the tensor.
        tensor: Or None.
        numel: How many elements a kernel reads or writes.
        dtype: The dtype that it takes them for.
        memory_format: The order that it takes them in.

    Raises:
        RuntimeError: the tensor is another one, or has less memory than elements.
    """
    if tensor is None:
        return 0
    if (
        tensor.dtype is dtype
        and tensor.numel() == numel
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.is_contiguous(memory_format=memory_format)
        and not tensor.is_neg()  # a lazy negation: its address is that of its opposite
        and tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + numel) * tensor.itemsize
    ):
        start = tensor.data_ptr()
        if start:
            return start
    raise RuntimeError(
        f"a normalization expected {label} to be {numel} elements of {dtype}, one after the other in CPU memory; got "
        f"{describe(tensor)}: keep it as it was until the passes forward and backward are over"
    )


def has_memory(tensor: Tensor) -> bool:
    """Whether the storage of a tensor, which may have been resized, reaches to its last element."""
    reach = tensor.numel() if tensor.is_contiguous() else _reach(tensor)
    return tensor.untyped_storage().nbytes() >= (tensor.storage_offset() + reach) * tensor.itemsize


def _reach(tensor: Tensor) -> int:
    """Return how many elements lie from the first of a tensor to its last, in memory, both included."""
    return 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def describe(tensor: Tensor) -> str:
    """Return in words what a tensor is, and what is wrong with its memory."""
    form = f"{tensor.dtype} of shape {tuple(tensor.shape)} on {tensor.device}"
    if tensor.layout is not torch.strided:
        return f"{form} ({tensor.layout})"
    if has_memory(tensor):
        return form
    return f"{form} with a storage of {tensor.untyped_storage().nbytes()} bytes (its storage was freed or resized)"
