"""torch's own operations: for what it does at least as well (the smallest inputs), and for every device.

They are called without the Python functions around them: what those check, :mod:`normkit.functional` has checked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit.backends import eager
from normkit.backends.exact import make_exact
from normkit.spec import Norm
from normkit.statistics import Running


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
    y = _normalize(x, norm, weight, bias, eps, running, use_input_stats)
    if x.dim() in (4, 5) and eager.memory_order(x) is not None:  # torch's layer and instance norms lose it
        y = eager.channels_last(y)
    return y


def _normalize(
    x: Tensor,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running | None,
    use_input_stats: bool,
) -> Tensor:
    mean, var, momentum, batches = running if running is not None else (None, None, 0.0, None)
    if isinstance(momentum, Tensor):  # torch's functions take a number: let them write the batch's own statistics
        assert mean is not None  # it came with a momentum
        assert var is not None
        batch = Running(torch.zeros_like(mean), torch.zeros_like(var), 1.0, batches)
        y = _normalize(x, norm, weight, bias, eps, batch, use_input_stats)
        mean.lerp_(batch.mean, momentum.to(mean.dtype))
        var.lerp_(batch.var, momentum.to(var.dtype))
        return y
    if norm.kind == "batch":
        return batch_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps, batches)
    if norm.kind == "instance":
        return instance_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps)
    if norm.kind == "group":
        return group_norm(x, norm.num_groups, weight, bias, eps)
    if norm.kind == "channel":
        return channel_norm(x, weight, bias, eps)
    if norm.centred:
        return layer_norm(x, norm.normalized_shape, weight, bias, eps)
    return torch.rms_norm(x, norm.normalized_shape, weight, eps)


def _permutations(axes: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of axes: channels to the end, and back."""
    return (0, *range(2, axes), 1), (0, axes - 1, *range(1, axes - 1))


_PERMUTATIONS = {axes: _permutations(axes) for axes in (3, 4, 5)}  # as looking them up is faster


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    batches: Tensor | None,
) -> Tensor:
    """torch.batch_norm, right in its third derivatives too; counts ``batches``, if there are any, up by one."""
    if batches is not None:
        batches.add_(1)  # before, as a checkpoint ends its second pass inside of the operation
    try:
        y = torch.batch_norm(
            x, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, torch.backends.cudnn.enabled
        )
    except (RuntimeError, TypeError):  # it has refused the call, and moved nothing
        if batches is not None:
            batches.sub_(1)
        raise
    if use_input_stats and y.requires_grad:
        make_exact(y, eps)
    return y


def layer_norm(
    x: Tensor, normalized_shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> Tensor:
    """torch.layer_norm, right in its third derivatives too."""
    y = torch.layer_norm(x, normalized_shape, weight, bias, eps)
    if y.requires_grad:
        make_exact(y, eps)
    return y


def channel_norm(x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """permute, torch.layer_norm, permute; right in its third derivatives too."""
    axes = x.dim()
    to_last, back = _PERMUTATIONS[axes] if axes in _PERMUTATIONS else _permutations(axes)
    y = layer_norm(x.permute(to_last), (x.shape[1],), weight, bias, eps).permute(back)
    return y if eager.becomes_channels_last("channel", x) else y.contiguous()


def group_norm(x: Tensor, num_groups: int, weight: Tensor | None, bias: Tensor | None, eps: float) -> Tensor:
    """torch.group_norm, also where it would kill the process."""
    if not x.requires_grad and _is_recording() and eager.memory_order(x) is not None:
        # torch's gradient of weight and bias alone kills the process where x is channels last (torch 2.13)
        return eager.channels_last(torch.group_norm(x.contiguous(), num_groups, weight, bias, eps))
    return torch.group_norm(x, num_groups, weight, bias, eps)


def instance_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
) -> Tensor:
    """torch.instance_norm; on the CPU torch.group_norm of groups of one channel, which takes half the time."""
    if x.is_cpu and use_input_stats and running_mean is None and x.numel() and not is_compiling():
        y = group_norm(x.contiguous(), x.shape[1], weight, bias, eps)
        return y if eager.memory_order(x) is None else eager.channels_last(y)
    y = torch.instance_norm(
        x, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, torch.backends.cudnn.enabled
    )
    if use_input_stats and y.requires_grad:
        make_exact(y, eps)
        if x.shape[0] == 1 and _is_recording():
            # torch's gradient of a single sample is wrong where dy is channels last
            y.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
    return y


def _is_recording() -> bool:
    """Whether gradients may be asked for, other than those of a graph, which torch derives anew."""
    return torch.is_grad_enabled() and not is_compiling() and torch._C._get_tracing_state() is None
