"""Plain torch operations: any device, any dtype, differentiable any number of times."""

import math

import torch
from torch import Tensor

from normkit.spec import Norm, view
from normkit.statistics import Running, update_running

HALF = (torch.float16, torch.bfloat16)
RELU = (0.0, math.inf)  # the bounds that it is


def normalize(
    x: Tensor,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running | None,
    use_input_stats: bool,
) -> Tensor:
    """Normalize x; see :func:`normkit.backends.normalize`."""
    order = memory_order(x)
    if order is None:
        x = x.contiguous()  # and so will the result be, as torch's is
    v = view(norm, tuple(x.shape), order)
    compute = torch.float32 if x.dtype in HALF else x.dtype
    factors = x.permute(v.order).reshape(v.sizes).to(compute)
    if use_input_stats:
        if norm.centred:
            mean = factors.mean(v.reduced, keepdim=True) if v.reduced else factors
            factors = factors - mean
            # The mean was rounded: what is left of it matters once it exceeds the standard deviation many times.
            rest = factors.mean(v.reduced, keepdim=True) if v.reduced else factors
            factors = factors - rest
            mean = mean + rest
        var = (factors * factors).mean(v.reduced, keepdim=True) if v.reduced else factors * factors
        if running is not None:
            running.count_batch()
        if running is not None and norm.centred and x.numel():  # an empty batch says nothing
            channels = running.mean.numel()
            shape = (channels,) if norm.kind == "batch" else (-1, channels)
            update_running(running, mean.detach().reshape(shape), var.detach().reshape(shape), v.count)
    else:
        assert running is not None  # functional.py has checked it
        mean, var = (statistic.to(compute).reshape(v.affine_sizes) for statistic in running[:2])
        factors = factors - mean
    y = factors * torch.rsqrt(var + eps)
    if weight is not None:
        y = y * _in_memory_order(weight, v.affine_order).to(compute).reshape(v.affine_sizes)
    if bias is not None:
        y = y + _in_memory_order(bias, v.affine_order).to(compute).reshape(v.affine_sizes)
    y = y.to(x.dtype).reshape([x.shape[axis] for axis in v.order])
    y = y.permute([v.order.index(axis) for axis in range(x.dim())])
    turned = becomes_channels_last(norm.kind, x) and not torch._C._functorch.is_functorch_wrapped_tensor(y)
    return channels_last(y) if turned else y


def complete(y: Tensor, norm: Norm, residual: Tensor | None = None) -> Tensor:
    """A fresh result, or what becomes of it in its place: plus a residual, between the bounds of its norm."""
    if residual is not None:
        y = y + residual
    if norm.bounds is None:
        return y
    return torch.relu_(y) if norm.bounds == RELU else torch.nn.functional.hardtanh(y, *norm.bounds)


def pass_between(dy: Tensor, y: Tensor, bounds: tuple[float, float]) -> Tensor:
    """The gradient of a result before it was kept between bounds: dy, and 0 where a bound holds it."""
    aten = torch.ops.aten
    passed: Tensor = aten.threshold_backward(dy, y, 0.0) if bounds == RELU else aten.hardtanh_backward(dy, y, *bounds)
    return passed


def becomes_channels_last(kind: str, x: Tensor) -> bool:
    """Whether the result of a kind of norm is channels last, whatever the layout of x."""
    return kind == "channel" and x.dim() in (4, 5)


def channels_last(x: Tensor) -> Tensor:
    """x, of four or five axes, in channels-last memory."""
    return x.contiguous(memory_format=channels_last_format(x))


def channels_last_format(x: Tensor) -> torch.memory_format:
    """What channels-last memory is called for the axes of x, of which there are four or five."""
    return torch.channels_last if x.dim() == 4 else torch.channels_last_3d


def memory_order(x: Tensor) -> tuple[int, ...] | None:
    """The axes of a channels-last x, outermost in memory first; None: take them as they are."""
    if x.is_contiguous() or torch._C._functorch.is_batchedtensor(x):  # vmap hides the layout of what it maps over
        return None
    if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last):
        return (0, 2, 3, 1)
    if x.dim() == 5 and x.is_contiguous(memory_format=torch.channels_last_3d):
        return (0, 2, 3, 4, 1)
    return None


def _in_memory_order(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    return weight if weight.dim() == 1 else weight.permute(order)
