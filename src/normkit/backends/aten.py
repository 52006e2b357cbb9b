"""torch's own operations: for what it does at least as well (the smallest inputs), and for every device.

They are called without the Python functions around them: what those check, :mod:`normkit.backends.checks` has checked.
"""

from collections.abc import Callable
from typing import Any, Final, cast

import torch
from torch import Tensor
from torch.compiler import is_compiling, is_exporting
from torch.nn import functional as F

from normkit.backends import eager
from normkit.backends.call import Call, needs_graph
from normkit.backends.checks import check_batch, check_group, check_instance
from normkit.backends.higher_order import fix_higher_derivatives
from normkit.backends.layout import channels_last, memory_order, output_is_channels_last
from normkit.backends.torch_internals import KNOWS_NODES, is_tracing, is_transforming
from normkit.statistics import Running, widened


def normalize(call: Call) -> Tensor:
    """Normalize x, right in third derivatives too; the epilogue is left to the caller."""
    if _is_recording() and needs_graph(call) and (not KNOWS_NODES or is_transforming(call.x, call.weight, call.bias)):
        return eager.normalize(call)  # what fixes the third derivatives of torch's is missing, or cannot see the graph
    return OPERATIONS[call.norm.kind](call)


def call_overridden(call: Call) -> Tensor:
    """Call the public function that tensors override: it works as they have it work, or raises what they raise."""
    x, norm, weight, bias, eps, running, use_input_stats, _ = call
    mean, var, momentum, tracked = (None, None, 0.0, None) if running is None else running
    if norm.kind == "batch":
        y = F.batch_norm(x, mean, var, weight, bias, use_input_stats, cast("float", momentum), eps)
        if tracked is not None:
            tracked.add_(1)
    elif norm.kind == "instance":
        y = F.instance_norm(x, mean, var, weight, bias, use_input_stats, cast("float", momentum), eps)
    elif norm.kind == "group":
        y = F.group_norm(x, norm.num_groups, weight, bias, eps)
    elif norm.kind == "channel":
        to_last, back = _permutations(x.dim())
        y = F.layer_norm(x.permute(to_last), (x.shape[1],), weight, bias, eps).permute(back)
    elif norm.subtract_mean:
        y = F.layer_norm(x, norm.normalized_shape, weight, bias, eps)
    else:
        y = F.rms_norm(x, norm.normalized_shape, weight, eps)
    return y


def _with_tensor_momentum(call: Call, running: Running, momentum: Tensor) -> Tensor:
    """Normalize where momentum is no number, as torch expects: it writes the batch's own statistics."""
    old = [widened(statistic) for statistic in running[:2]]
    batch = Running(torch.zeros_like(old[0]), torch.zeros_like(old[1]), 1.0, running.num_batches_tracked)
    if old[0] is not running.mean:  # beside such statistics torch takes no parameters in half precision
        weight = torch.ones_like(old[1]) if call.weight is None else widened(call.weight)
        call = call._replace(weight=weight, bias=None if call.bias is None else widened(call.bias))
    y = OPERATIONS[call.norm.kind](call._replace(running=batch))
    for statistic, before, new in zip(running[:2], old, batch[:2], strict=True):
        statistic.copy_(before.lerp(new, momentum.to(before.dtype)))
    return y


def _batch_norm(call: Call) -> Tensor:
    """Call torch.batch_norm; it counts the batch."""
    check_batch(call)
    x, _, weight, bias, eps, running, use_input_stats, _ = call
    if running is not None and isinstance(running.momentum, Tensor):
        return _with_tensor_momentum(call, running, running.momentum)
    if _has_axes_to_merge(call):
        return _with_merged_axes(call)
    weight = _dense(weight)
    mean, var, momentum, tracked = _running_of(call)
    if tracked is not None:
        tracked.add_(1)  # before, as a checkpoint ends its second pass inside of the operation
    try:
        y = torch.batch_norm(x, weight, bias, mean, var, use_input_stats, momentum, eps, torch.backends.cudnn.enabled)
    except (RuntimeError, TypeError):  # it has refused the call, and updated nothing
        if tracked is not None:
            tracked.sub_(1)
        raise
    if use_input_stats and y.requires_grad:
        fix_higher_derivatives(y, eps)
    return y


def _dense(weight: Tensor | None) -> Tensor | None:
    """Return the weight of a batch norm in contiguous memory: torch's gradient reads it as if it were."""
    return weight if weight is None or weight.is_contiguous() else weight.contiguous()


def _has_axes_to_merge(call: Call) -> bool:
    """Whether torch's gradient of a batch norm of four axes and more may be wrong; of fewer it is right.

    Where x or dy has an odd stride at an axis of size 1, it walks one of the two in another memory order. Of float16 in
    channels last its sums are float16, and overflow.
    """
    x = call.x
    return x.dim() > 3 and (1 in x.shape or x.dtype is torch.float16) and _is_recording() and needs_graph(call)


def _with_merged_axes(call: Call) -> Tensor:
    """Normalize a batch of many axes as (N, C, L), or as (N · L, C) where it is channels last."""
    x = call.x
    if memory_order(x) is None:
        return _batch_norm(call._replace(x=x.contiguous().flatten(2))).view(x.shape)
    to_last, back = _PERMUTATIONS[x.dim()]
    last = x.permute(to_last)
    return _batch_norm(call._replace(x=last.flatten(0, -2))).view(last.shape).permute(back)


def _layer_norm(call: Call) -> Tensor:
    """Call torch.layer_norm or torch.rms_norm."""
    x, norm, weight, bias, eps, _, _, _ = call
    if norm.subtract_mean:
        y = torch.layer_norm(x, norm.normalized_shape, weight, bias, eps)
        if y.requires_grad:
            fix_higher_derivatives(y, eps)
    else:
        y = torch.rms_norm(x, norm.normalized_shape, weight, eps)
    return y if x.is_contiguous() else _in_layout_of(x, y)


def _permutations(axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the permutation of axes that brings channels to the end, and the one back."""
    return (0, *range(2, axes), 1), (0, axes - 1, *range(1, axes - 1))


_PERMUTATIONS: Final = {axes: _permutations(axes) for axes in (3, 4, 5)}  # as looking them up is faster


def _channel_norm(call: Call) -> Tensor:
    """Call permute, torch.layer_norm, permute."""
    x, axes = call.x, call.x.dim()
    to_last, back = _PERMUTATIONS[axes] if axes in _PERMUTATIONS else _permutations(axes)
    y = torch.layer_norm(x.permute(to_last), (x.shape[1],), call.weight, call.bias, call.eps)
    if y.requires_grad:
        fix_higher_derivatives(y, call.eps)
    y = y.permute(back)
    return y if output_is_channels_last(call.norm, x) else y.contiguous()  # permuted, it is channels last


def _group_norm(call: Call) -> Tensor:
    check_group(call)
    return _safe_group_norm(call.x, call.norm.num_groups, call)


def _safe_group_norm(x: Tensor, num_groups: int, call: Call) -> Tensor:
    """Call torch.group_norm, and not on what it fails on."""
    weight, bias = call.weight, call.bias
    alone = is_compiling() or is_tracing()  # a graph holds the operation alone
    if weight is None and bias is not None and not alone:
        weight = torch.ones_like(bias)  # torch's gradient of a bias alone fails
    if x.is_cpu and not alone and memory_order(x) is not None:
        # there torch takes the variance as E[x²] - mean², and its gradient of weight and bias alone kills the process
        return channels_last(torch.group_norm(x.contiguous(), num_groups, weight, bias, call.eps))
    return torch.group_norm(x, num_groups, weight, bias, call.eps)


def _instance_norm(call: Call) -> Tensor:
    """Call torch.instance_norm; on the CPU torch.group_norm of groups of one channel, which takes half the time."""
    check_instance(call)
    x = call.x
    if x.is_cpu and call.use_input_stats and call.running is None and x.numel() and not is_compiling():
        y = _safe_group_norm(x.contiguous(), x.shape[1], call)
        return y if x.is_contiguous() else _in_layout_of(x, y)
    if call.running is not None and isinstance(call.running.momentum, Tensor):
        return _with_tensor_momentum(call, call.running, call.running.momentum)
    if _has_axes_to_merge(call):  # torch makes a batch norm of it
        y = _instance_norm(call._replace(x=x.contiguous().flatten(2))).view(x.shape)
        return y if x.is_contiguous() else _in_layout_of(x, y)
    mean, var, momentum, _ = _running_of(call)
    y = torch.instance_norm(
        x,
        _dense(call.weight),
        call.bias,
        mean,
        var,
        call.use_input_stats,
        momentum,
        call.eps,
        torch.backends.cudnn.enabled,
    )
    if call.use_input_stats and y.requires_grad:
        fix_higher_derivatives(y, call.eps)
    return y if x.is_contiguous() else _in_layout_of(x, y)


def _in_layout_of(x: Tensor, y: Tensor) -> Tensor:
    """Return a result channels last where x is: torch's layer and instance norms lose it."""
    return channels_last(y) if x.dim() in (4, 5) and memory_order(x) is not None else y


OPERATIONS: Final[dict[str, Callable[[Call], Tensor]]] = {
    "batch": _batch_norm,
    "layer": _layer_norm,
    "channel": _channel_norm,
    "group": _group_norm,
    "instance": _instance_norm,
}


def _running_of(call: Call) -> tuple[Tensor | None, Tensor | None, Any, Tensor | None]:
    """Return running_mean, running_var, momentum and num_batches_tracked, as torch's operation takes them.

    It keeps the statistics for the backward pass: in training without a use for them, so their version must not count
    (`.data` is an alias with a version of its own); in evaluation as they are, so what updates them later must not
    reach them. Traced and exported graphs hold the operation alone.
    """
    if call.running is None:
        return None, None, 0.0, None
    mean, var, momentum, tracked = call.running
    if mean.requires_grad or var.requires_grad or not needs_graph(call) or is_tracing() or is_exporting():
        return mean, var, momentum, tracked
    if not call.use_input_stats:
        return mean.clone(), var.clone(), momentum, tracked
    return (mean, var, momentum, tracked) if is_compiling() else (mean.data, var.data, momentum, tracked)


def _is_recording() -> bool:
    """Whether gradients may be asked for, other than those of a graph, which torch derives anew."""
    return torch.is_grad_enabled() and not is_compiling() and not is_tracing()
