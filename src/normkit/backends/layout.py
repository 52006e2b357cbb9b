"""The memory layout of inputs and results: row-major, or channels last."""

import torch
from torch import Tensor

from normkit.backends.torch_internals import hides_layout
from normkit.spec import Norm


def memory_order(x: Tensor) -> tuple[int, ...] | None:
    """Return the axes of a channels-last x, outermost in memory first; None: take them as they are."""
    if x.is_contiguous() or hides_layout(x):
        return None
    if x.dim() in (4, 5) and x.is_contiguous(memory_format=channels_last_format(x)):
        return channels_last_order(x)
    return None


def channels_last_order(x: Tensor) -> tuple[int, ...]:
    """Return the axes of channels-last memory, outermost first, for an x of four or five axes."""
    return (0, 2, 3, 1) if x.dim() == 4 else (0, 2, 3, 4, 1)


def channels_last(x: Tensor) -> Tensor:
    """Return x, of four or five axes, in channels-last memory."""
    return x.contiguous(memory_format=channels_last_format(x))


def format_of_order(x: Tensor, order: tuple[int, ...] | None) -> torch.memory_format:
    """Return the name of the memory layout that `memory_order` has told by its axes."""
    return torch.contiguous_format if order is None else channels_last_format(x)


def channels_last_format(x: Tensor) -> torch.memory_format:
    """Return the name of channels-last memory for the axes of x, of which there are four or five."""
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def output_is_channels_last(norm: Norm, x: Tensor) -> bool:
    """Whether the result is channels last, whatever the layout of x."""
    return norm.writes_channels_last and x.dim() in (4, 5)
