"""From how many numbers on a kernel of ours pays: below, torch's own operation is as fast, or faster.

A call of ours costs more than one of torch's; and some operations of torch are near the speed of memory themselves, so
that a kernel pays only where its outputs, written past the caches, save more than that. `normkit bench --crossover`
measures it.
"""

from functools import lru_cache
from typing import Final

import torch

from normkit.backends.eager import HALF
from normkit.spec import Norm

SMALLEST: Final = 1 << 17  # no kernel pays below


@lru_cache(maxsize=1024)
def crossover(norm: Norm, dtype: torch.dtype, axes: int, channels_last: bool) -> int:
    """The smallest number of elements that a kernel takes.

    Args:
        norm: Which normalization.
        dtype: Of the input.
        axes: Of the input.
        channels_last: Whether it lies in channels-last memory.
    """
    half = dtype in HALF  # their conversion is work for the processor: kernels gain less, or more
    if norm.kind == "batch":
        if axes == 2 or channels_last:  # channels lie innermost
            return 1 << 22 if half or axes == 2 else 1 << 23
        return 1 << 19 if half else SMALLEST
    if norm.kind == "group" and channels_last:
        return SMALLEST if half else 1 << 20
    if norm.centred and (norm.kind in ("layer", "group") or (norm.kind == "channel" and channels_last)):
        return 1 << 19 if half else 3 << 21
    return SMALLEST
