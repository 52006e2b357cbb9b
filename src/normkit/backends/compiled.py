"""The kernels inside compiled graphs: registered operators, which torch.compile calls without looking into them.

``normkit::normalize`` and ``normkit::normalize_backward`` are the two passes of :mod:`normkit.backends.kernel_passes`,
with fake implementations (shapes, dtypes and memory layouts without the elements) and a registered gradient. They only
compute; the running statistics are updated in the graph, by plain operations, so that a momentum may be a tensor.

An operator takes tensors and plain values only, so a norm travels as its kind and a list: see :func:`_encode`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from normkit.backends import kernel_passes
from normkit.backends.call import Call
from normkit.backends.checks import check_tensors, running_or_none
from normkit.backends.dtypes import compute_dtype
from normkit.backends.eligibility import unreadable_reason
from normkit.backends.layout import channels_last_format, channels_last_order, memory_order, output_is_channels_last
from normkit.spec import Norm
from normkit.statistics import update_running


def normalize(call: Call) -> Tensor:
    """Normalize x; the epilogue is left to the caller."""
    x, norm, weight, bias, eps, running, use_input_stats, _ = call
    mean, var = (None, None) if use_input_stats or running is None else (running.mean, running.var)
    y, batch_mean, batch_var, _ = _forward(x, weight, bias, mean, var, norm.kind, _encode(norm), eps)
    if use_input_stats and running is not None:
        shape = (-1, running.mean.numel())
        count = x.numel() // batch_mean.numel()
        update_running(running, batch_mean.detach().view(shape), batch_var.detach().view(shape), count)
        running.count_batch()
    result: Tensor = y
    return result


def _encode(norm: Norm) -> list[int]:
    """Return all of a norm but its kind as a list."""
    return [int(norm.subtract_mean), norm.num_groups, *norm.normalized_shape]


def _decode(kind: str, values: Sequence[int]) -> Norm:
    if len(values) < 2:
        raise ValueError(f"expected a norm as [subtract_mean, num_groups, *normalized_shape]; got {list(values)}")
    subtract_mean, num_groups, *normalized_shape = values
    return Norm(kind, bool(subtract_mean), num_groups, tuple(normalized_shape))


@torch.library.custom_op("normkit::normalize", mutates_args=())
def _forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    kind: str,
    norm: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return y, mean, var, rstd."""
    decoded = _decode(kind, norm)
    running = running_or_none(
        f"{decoded.name}_norm", running_mean, running_var, 0.0, use_input_stats=running_mean is None
    )
    call = Call(x, decoded, weight, bias, eps, running, running is None)
    _check(call)
    if x.numel() == 0:
        y, mean, var, rstd = _fake_forward(x, weight, bias, running_mean, running_var, kind, norm, eps)
        return y, mean.fill_(torch.nan), var.fill_(torch.nan), rstd.fill_(torch.nan)
    y, mean, var, rstd, *_ = kernel_passes.forward(call)
    # an operator may not return its input
    return y, *((mean, var) if running is None else (mean.clone(), var.clone())), rstd


def _check(call: Call) -> None:
    """Raise where the kernels cannot take what an operator was given: anybody may call it."""
    check_tensors(call)
    reason = unreadable_reason(call.x, call.weight, call.bias)
    if reason is not None:
        raise RuntimeError(f"normkit's operators expected other tensors: {reason}")


@_forward.register_fake
def _fake_forward(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    kind: str,
    norm: Sequence[int],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    decoded = _decode(kind, norm)
    num_stats = 1
    for axis in decoded.axes(x.shape):
        for part in axis:
            num_stats = num_stats if part.reduced else num_stats * part.size
    mean, var, rstd = (x.new_empty((num_stats,), dtype=compute_dtype(x.dtype)) for _ in range(3))
    if output_is_channels_last(decoded, x):
        return torch.empty_like(x, memory_format=channels_last_format(x)), mean, var, rstd
    return _like(x), mean, var, rstd


def _like(x: Tensor) -> Tensor:
    """Return memory for a result: that of x where x is dense in a layout that the kernels walk, else row-major."""
    return torch.empty_like(x if memory_order(x) is not None else x.contiguous())


@torch.library.custom_op("normkit::normalize_backward", mutates_args=())
def _backward(
    dy: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    mean: Tensor,
    rstd: Tensor,
    kind: str,
    norm: Sequence[int],
    flags: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return dx, dweight, dbias; the last two are empty where there is no such parameter.

    Args:
        parameters: Weight and bias, as far as there are any.
        flags: Whether there is a weight, whether there is a bias, whether the statistics are those of x, and whether x
            lay in channels-last memory when they were taken.
    """
    weight, bias = _parameters(parameters, flags)
    decoded = _decode(kind, norm)
    _check(Call(x, decoded, weight, bias))
    if x.numel() == 0:
        dweight, dbias = (x.new_empty(0) if p is None else torch.zeros_like(p) for p in (weight, bias))
        return _like(x), dweight, dbias
    like_bias = None if bias is None else (bias.shape, bias.dtype)
    order = channels_last_order(x) if flags[3] else None
    saved = kernel_passes.Saved(x, weight, mean, rstd, order, decoded, like_bias, flags[2])
    gradients = kernel_passes.backward(dy, saved, (True, weight is not None, bias is not None))
    dx, dweight, dbias = (x.new_empty(0) if gradient is None else gradient for gradient in gradients)
    return dx, dweight, dbias


@_backward.register_fake
def _fake_backward(
    dy: Tensor,
    x: Tensor,
    parameters: Sequence[Tensor],
    mean: Tensor,
    rstd: Tensor,
    kind: str,
    norm: Sequence[int],
    flags: Sequence[bool],
) -> tuple[Tensor, Tensor, Tensor]:
    dweight, dbias = (x.new_empty(0) if p is None else p.new_empty(p.shape) for p in _parameters(parameters, flags))
    return _like(x), dweight, dbias


def _parameters(parameters: Sequence[Tensor], flags: Sequence[bool]) -> tuple[Tensor | None, Tensor | None]:
    """Return weight and bias, each None if there is none."""
    if len(flags) != 4 or len(parameters) != flags[0] + flags[1]:
        raise ValueError(
            "expected four flags, and as many parameters as the first two of them name; got flags "
            f"{list(flags)} and {len(parameters)} parameters"
        )
    left = list(parameters)
    weight = left.pop(0) if flags[0] else None
    return weight, left.pop(0) if flags[1] else None


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, running_mean, _, *ctx.norm, _ = inputs
    _, mean, _, rstd = output
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.use_input_stats, ctx.channels_last = running_mean is None, memory_order(x) is not None


def _gradient(ctx: Any, dy: Tensor, *_unused: Tensor) -> tuple[Any, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    parameters = [parameter for parameter in (weight, bias) if parameter is not None]
    flags = [weight is not None, bias is not None, ctx.use_input_stats, ctx.channels_last]
    dx, dweight, dbias = _backward(dy, x, parameters, mean, rstd, *ctx.norm, flags)
    return dx, None if weight is None else dweight, None if bias is None else dbias, *[None] * 5


_forward.register_autograd(_gradient, setup_context=_setup)
