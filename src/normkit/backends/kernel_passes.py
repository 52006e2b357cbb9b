"""The two passes of a Numba kernel on CPU tensors: what they are given, and what they leave."""

import math
from functools import lru_cache
from typing import Final, NamedTuple

import torch
from torch import Tensor

from normkit.backends import numba
from normkit.backends.addresses import address, describe
from normkit.backends.call import Call
from normkit.backends.dtypes import HALF_DTYPES, KERNEL_DTYPES, compute_dtype
from normkit.backends.huge_pages import empty_like
from normkit.backends.layout import channels_last_format, format_of_order, memory_order, output_is_channels_last
from normkit.backends.watch import tell_watchers
from normkit.spec import Norm, View, view
from normkit.statistics import Running, update_running

CPU: Final = torch.device("cpu")  # of every tensor that is made here, as torch.set_default_device may name another
_NO_BOUNDS: Final = (0.0, 0.0)  # in place of bounds that no kernel reads


class Forward(NamedTuple):
    """Outputs of a forward pass.

    Args:
        y: The result.
        mean, var, rstd: The statistics, each of shape (A · K,), in the compute dtype.
        shift: What was added last to each of them, where bounds hold the result and there is no residual.
        order: The axes of x in memory: see :func:`~normkit.backends.layout.memory_order`. It is that of statistics too.
    """

    y: Tensor
    mean: Tensor
    var: Tensor
    rstd: Tensor
    shift: Tensor | None
    order: tuple[int, ...] | None


def forward(call: Call) -> Forward:
    """Normalize x, and keep the statistics."""
    tell_watchers()
    x, norm, weight, bias, eps, running, use_input_stats, _ = call
    if x.is_neg():  # the address of a lazy negation (the imaginary part of a conjugate) is that of its opposite
        x = x.resolve_neg()
    order = None if x.is_contiguous() else memory_order(x)
    layout = format_of_order(x, order)
    if order is None:
        x = x.contiguous()
    bounds, residual = call.bounds, call.residual
    transposed = order is None and output_is_channels_last(norm, x)
    y = empty_like(x, channels_last_format(x)) if transposed else empty_like(x)
    key = _LaunchKey(
        norm,
        x.shape,
        order,
        x.dtype,
        has_affine=weight is not None or bias is not None,
        precomputed=not use_input_stats,
        backward=False,
        transposed=transposed and not y.is_contiguous(),  # nor is it both
        has_bounds=bounds is not None,
        has_residual=residual is not None,
    )
    v, launch = _launch(key)
    compute = compute_dtype(x.dtype)
    w = None if weight is None else _in_memory_order(weight, v, compute)
    b = None if bias is None else _in_memory_order(bias, v, compute)
    rstd = torch.empty(launch.num_stats, dtype=compute, device=CPU)
    shift = None if bounds is None or residual is not None else torch.empty_like(rstd)
    if residual is not None:
        residual = residual.resolve_neg().contiguous(memory_format=layout)
    update = _NO_UPDATE
    if use_input_stats:
        mean, var = torch.empty_like(rstd), torch.empty_like(rstd)
        if running is not None:
            update = _update_by_kernel(running, launch.num_stats, compute)
    else:
        assert running is not None  # checks.py has checked it
        mean = _precomputed(running.mean, launch.num_stats, compute)
        var = _precomputed(running.var, launch.num_stats, compute)
    scratch = torch.empty(launch.scratch_bytes, dtype=torch.uint8, device=CPU) if launch.scratch_bytes else None
    numel, num_stats, affine_size = x.numel(), launch.num_stats, launch.affine_size
    pointers = numba.ForwardPointers(
        address("the input", x, numel, x.dtype, layout),
        y.data_ptr(),
        address("the residual", residual, numel, x.dtype, layout),
        address("weight", w, affine_size, compute),
        address("bias", b, affine_size, compute),
        mean.data_ptr() if use_input_stats else address("the mean", mean, num_stats, compute),
        var.data_ptr() if use_input_stats else address("the variance", var, num_stats, compute),
        rstd.data_ptr(),
        0 if shift is None else shift.data_ptr(),
        address("running_mean", update.mean, num_stats, compute),
        address("running_var", update.var, num_stats, compute),
        address("num_batches_tracked", update.num_batches_tracked, 1, torch.int64),
    )
    scratch_address = 0 if scratch is None else scratch.data_ptr()
    numba.forward(
        launch, pointers, eps, update.momentum, bounds or _NO_BOUNDS, scratch_address, torch.get_num_threads()
    )
    if use_input_stats and running is not None:
        _finish_update(running, update, mean, var, v.count)
    return Forward(y, mean, var, rstd, shift, order)


class _LaunchKey(NamedTuple):
    """What calls have in common that share a launch."""

    norm: Norm
    shape: torch.Size
    order: tuple[int, ...] | None
    dtype: torch.dtype
    has_affine: bool
    precomputed: bool
    backward: bool
    transposed: bool = False
    has_bounds: bool = False
    has_residual: bool = False


@lru_cache(maxsize=1024)
def _launch(key: _LaunchKey) -> tuple[View, numba.Launch]:
    """Return the view of an input, and how a kernel is called on it."""
    v = view(key.norm, key.shape, key.order)
    variant = numba.Variant(
        v,
        KERNEL_DTYPES[key.dtype],
        has_affine=key.has_affine,
        subtract_mean=key.norm.subtract_mean,
        precomputed=key.precomputed,
        backward=key.backward,
        transposed=key.transposed,
        has_bounds=key.has_bounds,
        has_residual=key.has_residual,
    )
    return v, numba.launch(variant)


class _Update(NamedTuple):
    """What a kernel updates: running statistics in the compute dtype, and a count of batches."""

    mean: Tensor | None = None
    var: Tensor | None = None
    num_batches_tracked: Tensor | None = None
    momentum: float = 0.0


_NO_UPDATE: Final = _Update()


def _update_by_kernel(running: Running, num_stats: int, compute: torch.dtype) -> _Update:
    """Return what a kernel can update: running statistics in place, or copies of half-precision ones."""
    mean, var, momentum, tracked = running
    if isinstance(momentum, Tensor) or mean.numel() != num_stats:
        return _NO_UPDATE
    if not (_is_plain(mean, compute) and _is_plain(var, compute)):
        if not all(_is_plain(stat, stat.dtype) and stat.dtype in HALF_DTYPES for stat in (mean, var)):
            return _NO_UPDATE
        mean, var = mean.to(compute), var.to(compute)
    counts = tracked is not None and tracked.numel() == 1 and _is_plain(tracked, torch.int64)
    return _Update(mean, var, tracked if counts else None, momentum)


def _finish_update(running: Running, update: _Update, mean: Tensor, var: Tensor, count: int) -> None:
    """Update what the kernel has not."""
    if update.mean is None or update.var is None:
        shape = (-1, running.mean.numel())
        update_running(running, mean.view(shape), var.view(shape), count)
    elif update.mean is not running.mean:
        running.mean.copy_(update.mean)
        running.var.copy_(update.var)
    if update.num_batches_tracked is None:
        running.count_batch()


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether the elements of a tensor of this dtype lie at its address, one after the other."""
    return (
        type(tensor) is Tensor
        and tensor.dtype is dtype
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


def _precomputed(statistic: Tensor, num_stats: int, compute: torch.dtype) -> Tensor:
    """Return running statistics in the compute dtype, repeated for each sample of an instance norm."""
    if statistic.dtype is compute and statistic.numel() == num_stats and statistic.is_contiguous():
        return statistic.detach().resolve_neg()
    statistic = statistic.detach().resolve_neg().to(compute)
    repeats = num_stats // statistic.numel()
    return statistic.repeat(repeats) if repeats > 1 else statistic.contiguous()


def _in_memory_order(parameter: Tensor, v: View, compute: torch.dtype) -> Tensor:
    """Return weight or bias in the compute dtype and in memory order."""
    parameter = parameter.resolve_neg() if parameter.is_neg() else parameter
    if parameter.dtype is compute and parameter.dim() == 1 and parameter.is_contiguous():
        return parameter
    if parameter.dim() > 1:
        parameter = parameter.permute(v.affine_order)
    return parameter.to(compute).contiguous()


class Saved(NamedTuple):
    """What a backward pass takes from its forward pass.

    Args:
        x, weight: As they were given.
        mean, rstd, order: As in :class:`Forward`.
        norm: Which axes.
        bias: Shape and dtype of the bias; None: there is none.
        use_input_stats: Whether the statistics depend on x.
        shift: As in :class:`Forward`.
        bounds: Of the result, where there is a shift.
    """

    x: Tensor
    weight: Tensor | None
    mean: Tensor
    rstd: Tensor
    order: tuple[int, ...] | None
    norm: Norm
    bias: tuple[torch.Size, torch.dtype] | None
    use_input_stats: bool
    shift: Tensor | None = None
    bounds: tuple[float, float] | None = None


def backward(dy: Tensor, saved: Saved, needed: tuple[bool, ...] = (True, True, True)) -> tuple[Tensor | None, ...]:
    """Return the gradients of x, weight and bias, those that are needed.

    Args:
        dy: In the shape of x.
        saved: What the forward pass has left.
        needed: Which of the three; the others are None.
    """
    x, weight, mean, rstd, order, norm, bias, use_input_stats, shift, bounds = saved
    needs_x, needs_weight, needs_bias = needed
    if dy.shape != x.shape or dy.dtype is not x.dtype:
        raise RuntimeError(
            f"a normalization expected a gradient of {x.dtype} of shape {tuple(x.shape)}, as its input is; got "
            f"{describe(dy)}"
        )
    layout = format_of_order(x, order)
    x, dy = (
        (tensor.resolve_neg() if tensor.is_neg() else tensor).contiguous(memory_format=layout) for tensor in (x, dy)
    )
    mean, rstd, shift = mean.contiguous(), rstd.contiguous(), None if shift is None else shift.contiguous()
    has_affine = weight is not None or bias is not None
    key = _LaunchKey(
        norm, x.shape, order, x.dtype, has_affine, not use_input_stats, backward=True, has_bounds=bounds is not None
    )
    v, launch = _launch(key)
    compute, numel, num_stats, affine_size = compute_dtype(x.dtype), x.numel(), launch.num_stats, launch.affine_size
    w = None if weight is None else _in_memory_order(weight, v, compute)
    dx = empty_like(x) if needs_x or launch.needs_dx else None
    dweight = dbias = None
    if needs_bias or (weight is not None and needs_weight):
        dweight = torch.empty(affine_size, dtype=compute, device=CPU)
        dbias = torch.empty_like(dweight)
    scratch = torch.empty(launch.scratch_bytes, dtype=torch.uint8, device=CPU)
    pointers = numba.BackwardPointers(
        address("the input", x, numel, x.dtype, layout),
        address("the gradient", dy, numel, x.dtype, layout),
        0 if dx is None else dx.data_ptr(),
        address("weight", w, affine_size, compute),
        address("the mean", mean, num_stats, compute),
        address("rstd", rstd, num_stats, compute),
        address("the shift", shift, num_stats, compute),
        0 if dweight is None else dweight.data_ptr(),
        0 if dbias is None else dbias.data_ptr(),
    )
    held = _NO_BOUNDS if bounds is None else finite_bounds(bounds)
    numba.backward(launch, pointers, held, scratch.data_ptr(), torch.get_num_threads())
    like_weight = None if weight is None else (weight.shape, weight.dtype)
    return (
        dx if needs_x else None,
        _like(dweight, like_weight, v) if needs_weight else None,
        _like(dbias, bias, v) if needs_bias else None,
    )


def finite_bounds(bounds: tuple[float, float]) -> tuple[float, float]:
    """Return the bounds that can hold a result: NaN, which nothing is beyond, in place of an infinite one."""
    lower, upper = (bound if math.isfinite(bound) else math.nan for bound in bounds)
    return lower, upper


def _like(gradient: Tensor | None, parameter: tuple[torch.Size, torch.dtype] | None, v: View) -> Tensor | None:
    """Return a gradient in memory order in the shape and dtype of its parameter, if there is one."""
    if gradient is None or parameter is None:
        return None
    shape, dtype = parameter
    result = gradient if gradient.dtype is dtype else gradient.to(dtype)
    if len(shape) > 1:
        result = result.view([shape[axis] for axis in v.affine_order])
        result = result.permute([v.affine_order.index(axis) for axis in range(len(shape))]).contiguous()
    return result
