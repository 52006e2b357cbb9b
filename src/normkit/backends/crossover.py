"""From how many numbers on a kernel of ours pays: below, torch's own operation is as fast, or faster.

A call of ours costs more than one of torch's; and some operations of torch are near the speed of memory themselves, so
that a kernel pays only where its outputs, written past the caches, save more than that. `normkit bench --crossover`
measures it.
"""

from functools import lru_cache
from math import prod
from sys import maxsize
from typing import Final, NamedTuple

import torch

from normkit.backends.eager import HALF
from normkit.backends.processor import has_large_l2
from normkit.spec import Norm


class _Least(NamedTuple):
    """From how many numbers on a kernel may pay, by the function that is called, whatever else is known of a call."""

    batch: int = 1 << 16
    layer: int = 3 << 20
    layer_half: int = 1 << 19
    rms: int = 1 << 14  # torch makes it of several operations
    group: int = 1 << 17
    instance: int = 3 << 12
    channel: int = 3 << 12


LEAST: Final = _Least()
SHORT: Final = 512  # numbers of a row, whose sums take us longer than they take torch's layer norm
NEVER: Final = maxsize
FEW: Final = 32  # channels, innermost in memory, that torch's batch norm is slow for


@lru_cache(maxsize=1024)
def crossover(
    norm: Norm,
    dtype: torch.dtype,
    axes: int,
    channels_last: bool,
    channels: int,
    running: bool = False,
    use_input_stats: bool = True,
    scattered: bool = False,
) -> int:
    """The smallest number of elements that a kernel takes.

    Args:
        norm: Which normalization.
        dtype: Of the input.
        axes: Of the input.
        channels_last: Whether it lies in channels-last memory.
        channels: Size of axis 1.
        running: Whether there are running statistics.
        use_input_stats: Whether the input's own statistics are used.
        scattered: Whether the numbers of a channel lie apart though it is not channels last, as in an N L C transposed.
    """
    half = dtype in HALF  # their conversion is work for the processor: kernels gain less, or more
    if norm.kind == "batch":
        innermost = axes == 2 or channels_last
        bounded = norm.bounds is not None  # torch takes an operation more
        if bounded and channels_last:
            return 1 << 19
        if channels >= FEW and innermost:
            if not use_input_stats:
                return 1 << 22
            if has_large_l2():
                return 1 << 19 if half or axes == 2 else 1 << 18
            return 1 << 20 if half or channels_last else 1 << 21
        if not use_input_stats:
            if scattered and not half:  # torch reads them where they are: we would copy them first
                return NEVER
            if bounded:
                return 1 << 20
            return 1 << 23 if dtype is torch.float16 and has_large_l2() else 1 << 21
        return 1 << 19 if half else 1 << 17 if innermost else LEAST.batch
    if norm.kind == "instance" and channels_last:
        return LEAST.instance
    if norm.kind == "instance" and running:  # else it is torch's group norm
        return 1 << 17
    if norm.kind == "group" and channels_last:
        if channels < norm.num_groups * (16 if half else 8):  # the fewer, the slower torch's gradient
            return LEAST.group
        return 1 << 19 if half else 1 << 20
    if norm.kind in ("group", "instance"):
        return 1 << 19 if half else 1 << 22
    if norm.kind == "channel" and not channels_last:
        return 1 << 15 if half else LEAST.channel
    if not norm.centred:
        return LEAST.rms
    row = prod(norm.normalized_shape) if norm.kind == "layer" else channels
    return LEAST.layer_half if half else 1 << 23 if row < SHORT else LEAST.layer
