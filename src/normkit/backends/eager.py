"""Plain torch operations: any device, any dtype, differentiable any number of times."""

import torch
from torch import Tensor

from normkit.backends.call import Call
from normkit.backends.dtypes import compute_dtype
from normkit.backends.layout import channels_last, memory_order, output_is_channels_last
from normkit.backends.torch_internals import is_wrapped
from normkit.spec import view
from normkit.statistics import update_running


def normalize(call: Call) -> Tensor:
    """Normalize x; the epilogue is left to the caller."""
    x, norm, running = call.x, call.norm, call.running
    order = memory_order(x)
    if order is None:
        x = x.contiguous()  # and so will the result be, as torch's is
    v = view(norm, tuple(x.shape), order)
    compute = compute_dtype(x.dtype)
    factors = x.permute(v.order).reshape(v.sizes).to(compute)
    if call.use_input_stats:
        if norm.subtract_mean:
            mean = factors.mean(v.reduced, keepdim=True) if v.reduced else factors
            factors = factors - mean
            # The mean was rounded: what is left of it matters once it exceeds the standard deviation many times.
            rest = factors.mean(v.reduced, keepdim=True) if v.reduced else factors
            factors = factors - rest
            mean = mean + rest
        var = (factors * factors).mean(v.reduced, keepdim=True) if v.reduced else factors * factors
        if running is not None:
            running.count_batch()
        if running is not None and norm.subtract_mean and x.numel():  # an empty batch says nothing
            shape = (-1, running.mean.numel())
            update_running(running, mean.detach().reshape(shape), var.detach().reshape(shape), v.count)
    else:
        assert running is not None  # functional.py has checked it
        # detached: forward mode would take a tangent of theirs, which torch's operation ignores
        mean, var = (statistic.detach().to(compute).reshape(v.affine_sizes) for statistic in running[:2])
        factors = factors - mean
    y = factors * torch.rsqrt(var + call.eps)
    if call.weight is not None:
        y = y * _in_memory_order(call.weight, v.affine_order).to(compute).reshape(v.affine_sizes)
    if call.bias is not None:
        y = y + _in_memory_order(call.bias, v.affine_order).to(compute).reshape(v.affine_sizes)
    y = y.to(x.dtype).reshape([x.shape[axis] for axis in v.order])
    y = y.permute([v.order.index(axis) for axis in range(x.dim())])
    return channels_last(y) if output_is_channels_last(norm, x) and not is_wrapped(y) else y


def _in_memory_order(weight: Tensor, order: tuple[int, ...]) -> Tensor:
    return weight if weight.dim() == 1 else weight.permute(order)
