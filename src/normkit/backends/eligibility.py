"""What a kernel can take, and from how many elements on it pays.

A call of a kernel costs more than one of torch's operation; and some operations of torch are near the speed of memory
themselves, so that a kernel pays only where its non-temporal stores save more than that. ``normkit bench crossover``
measures the thresholds.
"""

import os
from collections.abc import Callable
from functools import lru_cache
from importlib import util
from math import prod
from sys import maxsize
from typing import Final, NamedTuple

import torch
from torch import Tensor

from normkit.backends.call import Call, needs_graph
from normkit.backends.dtypes import HALF_DTYPES, KERNEL_DTYPES, parameter_fits
from normkit.backends.layout import memory_order
from normkit.backends.processor import has, has_large_l2
from normkit.backends.torch_internals import is_intercepted, is_tracing, is_wrapped
from normkit.spec import Norm

NEVER: Final = maxsize
MANY_CHANNELS: Final = 32  # innermost in memory: from here on torch's batch norm is fast
LONG_ROW: Final = 512  # elements of a row; the sums of shorter ones take longer than torch's layer norm


def _missing() -> str | None:
    if not util.find_spec("numba"):
        return "Numba is not installed"
    disabled = os.environ.get("NUMBA_DISABLE_JIT", "").strip()
    return "NUMBA_DISABLE_JIT is set" if disabled.isdigit() and int(disabled) else None


MISSING: Final = _missing()
"""Why this process can make no kernels at all; None if it can."""


class Traits(NamedTuple):
    """What decides from how many elements on a kernel pays.

    Args:
        norm: Which normalization.
        dtype: Of the input.
        axes: How many the input has.
        channels_last: Whether it lies in channels-last memory.
        channels: Size of axis 1.
        running: Whether there are running statistics.
        use_input_stats: Whether the input's own statistics are used.
        bounded: Whether bounds hold the result.
        transposed: Whether it is an (N, L, C) seen as (N, C, L): neighbours are of different channels.
    """

    norm: Norm
    dtype: torch.dtype
    axes: int
    channels_last: bool
    channels: int
    running: bool = False
    use_input_stats: bool = True
    bounded: bool = False
    transposed: bool = False

    @property
    def half(self) -> bool:
        """Whether the dtype is of half precision, whose conversion is work for the processor."""
        return self.dtype in HALF_DTYPES

    @property
    def many_innermost(self) -> bool:
        """Whether many channels lie innermost in memory."""
        return (self.axes == 2 or self.channels_last) and self.channels >= MANY_CHANNELS

    @property
    def row(self) -> int:
        """How many elements a layer norm averages."""
        return prod(self.norm.normalized_shape) if self.norm.normalized_shape else self.channels


class Threshold(NamedTuple):
    """The smallest number of elements that a kernel takes, of some norms in some cases."""

    min_numel: int
    norms: tuple[str, ...]
    case: str
    applies: Callable[[Traits], bool]


# The first that applies holds. docs/kernels.md shows this table.
THRESHOLDS: Final = (
    Threshold(1 << 19, ("batch",), "with bounds, channels last", lambda t: t.bounded and t.channels_last),
    Threshold(
        1 << 22,
        ("batch",),
        "evaluation, 32 channels and more innermost",
        lambda t: not t.use_input_stats and t.many_innermost,
    ),
    Threshold(
        1 << 19,
        ("batch",),
        "32 channels and more innermost, half precision or (N, C), large L2 cache",
        lambda t: t.many_innermost and has_large_l2() and (t.half or t.axes == 2),
    ),
    Threshold(
        1 << 18,
        ("batch",),
        "32 channels and more innermost, large L2 cache",
        lambda t: t.many_innermost and has_large_l2(),
    ),
    Threshold(
        1 << 20,
        ("batch",),
        "32 channels and more innermost, half precision or channels last",
        lambda t: t.many_innermost and (t.half or t.channels_last),
    ),
    Threshold(1 << 21, ("batch",), "32 channels and more innermost", lambda t: t.many_innermost),
    Threshold(
        NEVER,
        ("batch",),
        "evaluation of a transposed (N, L, C): torch reads it where it lies",
        lambda t: not t.use_input_stats and t.transposed and not t.half,
    ),
    Threshold(1 << 20, ("batch",), "evaluation, with bounds", lambda t: not t.use_input_stats and t.bounded),
    Threshold(
        1 << 23,
        ("batch",),
        "evaluation, float16, large L2 cache",
        lambda t: not t.use_input_stats and t.dtype is torch.float16 and has_large_l2(),
    ),
    Threshold(1 << 21, ("batch",), "evaluation", lambda t: not t.use_input_stats),
    Threshold(1 << 19, ("batch",), "half precision", lambda t: t.half),
    Threshold(1 << 17, ("batch",), "fewer channels innermost", lambda t: t.axes == 2 or t.channels_last),
    Threshold(1 << 16, ("batch",), "", lambda t: True),
    Threshold(3 << 12, ("instance",), "channels last", lambda t: t.channels_last),
    Threshold(1 << 17, ("instance",), "with running statistics", lambda t: t.running),
    Threshold(1 << 16, ("group",), "channels last", lambda t: t.channels_last),
    Threshold(1 << 19, ("group", "instance"), "half precision", lambda t: t.half),
    Threshold(1 << 22, ("group", "instance"), "", lambda t: True),
    Threshold(1 << 15, ("channel",), "contiguous, half precision", lambda t: not t.channels_last and t.half),
    Threshold(3 << 12, ("channel",), "contiguous", lambda t: not t.channels_last),
    Threshold(1 << 14, ("rms",), "", lambda t: True),
    Threshold(1 << 19, ("layer", "channel"), "half precision", lambda t: t.half),
    Threshold(1 << 23, ("layer", "channel"), "rows of fewer than 512", lambda t: t.row < LONG_ROW),
    Threshold(3 << 20, ("layer", "channel"), "", lambda t: True),
)

MIN_NUMEL: Final = min(threshold.min_numel for threshold in THRESHOLDS)
"""No kernel takes fewer elements, whatever the norm."""


@lru_cache(maxsize=1024)
def min_numel(traits: Traits) -> int:
    """Return the smallest number of elements that a kernel takes."""
    name = traits.norm.name
    return next(row.min_numel for row in THRESHOLDS if name in row.norms and row.applies(traits))


def traits_of(x: Tensor, norm: Norm, *, running: bool, use_input_stats: bool, bounded: bool) -> Traits:
    """Return what decides about an input."""
    axes, channels_last = x.dim(), memory_order(x) is not None
    channels = x.size(1) if axes > 1 else 0
    transposed = axes > 2 and channels > 1 and not channels_last and x.stride(1) == 1 and not x.is_contiguous()
    return Traits(norm, x.dtype, axes, channels_last, channels, running, use_input_stats, bounded, transposed)


def is_small(call: Call) -> bool:
    """Whether torch's operation is as fast on an input as a kernel."""
    traits = traits_of(
        call.x,
        call.norm,
        running=call.running is not None,
        use_input_stats=call.use_input_stats,
        bounded=call.bounds is not None,
    )
    return call.x.numel() < min_numel(traits)


def unsupported_reason(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """Return why the kernels cannot take a call; None if they can."""
    if is_tracing():
        return "the call is being traced"
    if is_intercepted():
        return "the call is intercepted by a dispatch mode"
    if is_wrapped(x):
        return "the input is what torch.func has left behind of a transform that is over"
    if type(x) not in (Tensor, torch.nn.Parameter):
        return f"{type(x).__name__} is a subclass of Tensor with rules of its own"
    reason = unreadable_reason(x, weight, bias)
    if reason is not None:
        return reason
    if x.numel() == 0:
        return "the input is empty"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is active on the CPU"
    return MISSING


def unreadable_reason(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """Return why the kernels cannot read these tensors, wherever they are called from; None if they can."""
    if not x.is_cpu or x.layout is not torch.strided:
        return f"the input is on {x.device.type} ({x.layout}), and the kernels read dense CPU memory"
    if x.dtype not in KERNEL_DTYPES:
        return f"the kernels compute float64, float32, bfloat16 and float16, not {x.dtype}"
    for parameter in (weight, bias):
        if parameter is not None and not (parameter.is_cpu and parameter_fits(parameter.dtype, x.dtype)):
            return f"weight and bias are {parameter.dtype} on {parameter.device.type} beside an input in {x.dtype}"
    if MISSING is None and x.dtype is torch.float16 and not has("f16c"):  # LLVM would abort the process
        return "this processor has no instructions that convert float16"
    return None


def is_overridden(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether tensors bring their own versions of torch.nn.functional: nested ones, or parameters of a subclass."""
    if x.is_nested:
        return True
    if type(weight) in _WITHOUT_FUNCTIONS and type(bias) in _WITHOUT_FUNCTIONS:
        return False
    given = [parameter for parameter in (weight, bias) if isinstance(parameter, Tensor)]
    # that of Parameter asks for nothing of its own
    return any(type(parameter).__torch_function__ is not torch.nn.Parameter.__torch_function__ for parameter in given)


_WITHOUT_FUNCTIONS: Final = (torch.nn.Parameter, Tensor, type(None))


def graph_takes(call: Call) -> bool:
    """Whether the kernels can run inside of a compiled graph, where tensors have no memory yet."""
    return (
        call.x.device.type == "cpu"
        and call.x.dtype in KERNEL_DTYPES
        and all(p is None or parameter_fits(p.dtype, call.x.dtype) for p in (call.weight, call.bias))
        and not torch.is_autocast_enabled("cpu")
        and MISSING is None
    )


def compiler_is_faster(call: Call) -> bool:
    """Whether a compiler does better without our operator, which it cannot fuse with what is around the norm.

    A backward pass is where the kernels gain; without one, a layer or RMS norm is one loop over each row, and a batch
    norm in evaluation is none of its own. The compiler's group and instance norms are no faster than ours.
    """
    return not needs_graph(call) and (call.norm.kind in ("layer", "channel") or not call.use_input_stats)


def adds_residual(residual: Tensor, x: Tensor) -> bool:
    """Whether a kernel can add a residual to the result of x."""
    return (
        residual.shape == x.shape
        and residual.dtype is x.dtype
        and type(residual) is Tensor
        and residual.is_cpu
        and residual.layout is torch.strided
    )
