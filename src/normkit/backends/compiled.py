"""The kernels inside compiled graphs: registered operators, which torch.compile calls without looking into them.

``normkit::normalize`` and ``normkit::normalize_backward`` are the two passes of :mod:`normkit.backends.cpu`, with fake
implementations (shapes, types and memory layouts without the numbers) and a registered gradient. They only compute;
the running statistics move in the graph, by plain operations, so that a momentum may be a tensor.
"""

from collections.abc import Sequence
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from normkit.backends import aten, available
from normkit.backends.eager import HALF, becomes_channels_last, channels_last_format, memory_order
from normkit.spec import Norm
from normkit.statistics import Running, update_running


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
    if not _kernels_take(x, weight, bias):
        return aten.normalize(x, norm, weight, bias, eps, running, use_input_stats)
    mean, var = (None, None) if use_input_stats or running is None else (running.mean, running.var)
    y, batch_mean, batch_var, _ = _forward(
        x, weight, bias, mean, var, norm.kind, norm.centred, norm.num_groups, norm.normalized_shape, eps
    )
    if use_input_stats and running is not None:
        shape = (-1,) if norm.kind == "batch" else (-1, running.mean.numel())
        count = x.numel() // batch_mean.numel()
        update_running(running, batch_mean.detach().view(shape), batch_var.detach().view(shape), count)
        running.count_batch()
    result: Tensor = y
    return result


def _kernels_take(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    return (
        x.device.type == "cpu"
        and x.dtype in (torch.float32, torch.float64, *HALF)
        and all(
            parameter is None or parameter.dtype is x.dtype or (parameter.dtype is torch.float32 and x.dtype in HALF)
            for parameter in (weight, bias)
        )
        and not torch.is_autocast_enabled("cpu")
        and available.OBSTACLE is None
    )


@torch.library.custom_op("normkit::normalize", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    kind: str,
    centred: bool,
    num_groups: int,
    normalized_shape: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y, mean, var, rstd."""
    norm = Norm(kind, centred, num_groups, tuple(normalized_shape))
    running = None if running_mean is None or running_var is None else Running(running_mean, running_var, 0.0)
    if x.numel() == 0:
        y, mean, var, rstd = _fake_forward(
            x, weight, bias, running_mean, running_var, kind, centred, num_groups, normalized_shape, eps
        )
        return y, mean.fill_(torch.nan), var.fill_(torch.nan), rstd.fill_(torch.nan)
    y, mean, var, rstd, _ = import_module("normkit.backends.cpu").forward(
        x, norm, weight, bias, eps, running, running is None
    )
    # an operator may not return its input
    return y, *((mean, var) if running is None else (mean.clone(), var.clone())), rstd


@_forward.register_fake
def _fake_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    kind: str,
    centred: bool,
    num_groups: int,
    normalized_shape: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    compute = torch.float64 if x.dtype is torch.float64 else torch.float32
    units = 1
    for axis in Norm(kind, centred, num_groups, tuple(normalized_shape)).axes(x.shape):
        for part in axis:
            units = units if part.reduced else units * part.size
    mean, var, rstd = (x.new_empty((units,), dtype=compute) for _ in range(3))
    if becomes_channels_last(kind, x):
        return torch.empty_like(x, memory_format=channels_last_format(x)), mean, var, rstd
    return _like(x), mean, var, rstd


def _like(x: Tensor) -> Tensor:
    """Memory for a result: that of x where x is dense in a layout that the kernels walk, else row-major."""
    return torch.empty_like(x if memory_order(x) is not None else x.contiguous())


@torch.library.custom_op("normkit::normalize_backward", mutates_args=())
def _backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    kind: str,
    centred: bool,
    num_groups: int,
    normalized_shape: Sequence[int],
    given: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, dweight, dbias; the last two are empty where there is no such parameter."""
    if x.numel() == 0:
        dweight, dbias = (x.new_empty(0) if p is None else torch.zeros_like(p) for p in (weight, bias))
        return _like(x), dweight, dbias
    norm = Norm(kind, centred, num_groups, tuple(normalized_shape))
    parts = SimpleNamespace(
        norm=norm,
        use_input_stats=not given,
        bias=None if bias is None else (bias.shape, bias.dtype),
        needs_input_grad=(True, weight is not None, bias is not None),
    )
    gradients = import_module("normkit.backends.cpu").backward(parts, dy, x, weight, mean, rstd)
    dx, dweight, dbias = (x.new_empty(0) if gradient is None else gradient for gradient in gradients)
    return dx, dweight, dbias


@_backward.register_fake
def _fake_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    kind: str,
    centred: bool,
    num_groups: int,
    normalized_shape: Sequence[int],
    given: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    dweight, dbias = (x.new_empty(0) if p is None else p.new_empty(p.shape) for p in (weight, bias))
    return _like(x), dweight, dbias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, running_mean, _, *ctx.norm, _ = inputs
    _, mean, _, rstd = output
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.given = running_mean is not None


def _gradient(ctx: Any, dy: Tensor, *unused: Tensor) -> tuple[Any, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    dx, dweight, dbias = _backward(dy, x, weight, bias, mean, rstd, *ctx.norm, ctx.given)
    return dx, None if weight is None else dweight, None if bias is None else dbias, *[None] * 7


_forward.register_autograd(_gradient, setup_context=_setup)
