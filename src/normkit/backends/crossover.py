"""From how many numbers on a kernel of ours pays: below, torch's own operation is as fast, or faster.

A call of ours costs more than one of torch's; and some operations of torch are near the speed of memory themselves, so
that a kernel pays only where its outputs, written past the caches, save more than that. `normkit bench --crossover`
measures it.
"""

from functools import lru_cache
from math import prod
from typing import Final

import torch

from normkit.backends.eager import HALF
from normkit.spec import Norm

SMALLEST: Final = 1 << 17  # no kernel pays below
SHORT: Final = 512  # numbers of a row, whose sums take us longer than they take torch's layer norm
FEW: Final = 32  # channels, innermost in memory, that torch's batch norm is slow for


@lru_cache(maxsize=1024)
def crossover(norm: Norm, dtype: torch.dtype, axes: int, channels_last: bool, channels: int) -> int:
    """The smallest number of elements that a kernel takes.

    Args:
        norm: Which normalization.
        dtype: Of the input.
        axes: Of the input.
        channels_last: Whether it lies in channels-last memory.
        channels: Size of axis 1.
    """
    half = dtype in HALF  # their conversion is work for the processor: kernels gain less, or more
    if norm.kind == "batch":
        if norm.bounds is not None and channels_last:  # torch takes an operation more
            return 1 << 19
        if channels >= FEW and (axes == 2 or channels_last):  # channels last: forward pays earlier, but in no network
            return 1 << 22
        return 1 << 19 if half else SMALLEST
    if norm.kind == "group" and channels_last:
        return SMALLEST if half else 1 << 20
    if norm.kind == "group":
        return 1 << 19 if half else 1 << 22
    if norm.centred and (norm.kind == "layer" or (norm.kind == "channel" and channels_last)):
        row = prod(norm.normalized_shape) if norm.kind == "layer" else channels
        return 1 << 19 if half else 1 << 23 if row < SHORT else 3 << 20
    return SMALLEST
