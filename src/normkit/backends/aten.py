"""torch's own operations: for what it does at least as well (the smallest inputs), and for every device."""

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.nn import functional as F

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
    if use_input_stats and y.requires_grad and norm.centred and norm.kind != "group" and not is_compiling():
        make_exact(y, x, norm, weight, bias, eps)
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
    mean, var, momentum = running if running is not None else (None, None, 0.0)
    if isinstance(momentum, Tensor):  # torch's functions take a number: let them write the batch's own statistics
        assert mean is not None  # it came with a momentum
        assert var is not None
        batch = Running(torch.zeros_like(mean), torch.zeros_like(var), 1.0)
        y = _normalize(x, norm, weight, bias, eps, batch, use_input_stats)
        mean.lerp_(batch.mean, momentum.to(mean.dtype))
        var.lerp_(batch.var, momentum.to(var.dtype))
        return y
    if norm.kind == "batch":
        return F.batch_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps)
    if norm.kind == "instance":
        y = F.instance_norm(x, mean, var, weight, bias, use_input_stats, momentum, eps)
        if x.shape[0] == 1 and y.requires_grad and _is_recording():
            # torch's gradient of a single sample is wrong where dy is channels last
            y.register_hook(Tensor.contiguous)  # type: ignore[no-untyped-call]
        return y
    if norm.kind == "group":
        if not x.requires_grad and _is_recording() and eager.memory_order(x) is not None:
            # torch's gradient of weight and bias alone kills the process where x is channels last (torch 2.13)
            return eager.normalize(x, norm, weight, bias, eps, running, use_input_stats)
        return F.group_norm(x, norm.num_groups, weight, bias, eps)
    if norm.kind == "channel":
        order = (0, *range(2, x.dim()), 1)
        y = F.layer_norm(x.permute(order), (x.shape[1],), weight, bias, eps)
        y = y.permute([order.index(axis) for axis in range(x.dim())])
        return y if eager.becomes_channels_last(norm.kind, x) else y.contiguous()
    if norm.centred:
        return F.layer_norm(x, list(norm.normalized_shape), weight, bias, eps)
    return F.rms_norm(x, list(norm.normalized_shape), weight, eps)


def _is_recording() -> bool:
    """Whether gradients may be asked for, other than those of a graph, which torch derives anew."""
    return torch.is_grad_enabled() and not is_compiling() and torch._C._get_tracing_state() is None
