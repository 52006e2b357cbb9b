"""The Numba kernels as a differentiable torch operation on CPU tensors."""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkit.backends import eager, numba
from normkit.backends.huge_pages import empty_like
from normkit.spec import Norm, View, view
from normkit.statistics import Running, update_running

CPU = torch.device("cpu")  # said of every tensor that is made here, as torch.set_default_device may say another
DTYPES = {
    torch.float64: "float64",
    torch.float32: "float32",
    torch.bfloat16: "bfloat16",
    torch.float16: "float16",
}
_NO_BOUNDS = (0.0, 0.0)  # in place of bounds that no kernel looks at


def normalize(
    x: Tensor,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running | None,
    use_input_stats: bool,
    residual: Tensor | None = None,
) -> Tensor:
    """Normalize x; see :func:`normkit.backends.normalize`."""
    if torch.is_grad_enabled() and (
        x.requires_grad
        or (weight is not None and weight.requires_grad)
        or (bias is not None and bias.requires_grad)
        or (residual is not None and residual.requires_grad)
    ):
        if x.is_inference():  # such a tensor cannot be saved for backward
            x = x.clone()
        y: Tensor = _apply(x, weight, bias, residual, norm, eps, running, use_input_stats)  # type: ignore[no-untyped-call]
        return y
    return forward(x, norm, weight, bias, eps, running, use_input_stats, residual).y


class Forward(NamedTuple):
    """What a forward pass leaves: the result, the statistics of every unit, and its shift if bounds hold it alone."""

    y: Tensor
    mean: Tensor
    var: Tensor
    rstd: Tensor
    shift: Tensor | None


def forward(
    x: Tensor,
    norm: Norm,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    running: Running | None,
    use_input_stats: bool,
    residual: Tensor | None = None,
) -> Forward:
    """Normalize x, and keep what belongs to the result."""
    if x.is_neg():  # the address of a lazy negation (the imaginary part of a conjugate) is that of its opposite
        x = x.resolve_neg()
    order = None if x.is_contiguous() else eager.memory_order(x)
    if order is None:
        x = x.contiguous()
    dtype = x.dtype
    compute = torch.float64 if dtype is torch.float64 else torch.float32
    turned = order is None and eager.becomes_channels_last(norm.kind, x)
    y = empty_like(x, eager.channels_last_format(x)) if turned else empty_like(x)
    turned = turned and not y.is_contiguous()  # nor is it both
    affine = weight is not None or bias is not None
    v, call = _launch(norm, x.shape, order, dtype, affine, not use_input_stats, False, turned, residual is not None)
    w = None if weight is None else _affine(weight, v, compute)
    b = None if bias is None else _affine(bias, v, compute)
    rstd = torch.empty(call.num_stats, dtype=compute, device=CPU)
    shift = None if norm.bounds is None or residual is not None else torch.empty_like(rstd)
    if residual is not None:
        residual = residual.resolve_neg()
        residual = residual.contiguous() if order is None else eager.channels_last(residual)
    moved: tuple[Tensor, ...] = ()
    momentum, batches = 0.0, 0
    if use_input_stats:
        mean, var = torch.empty_like(rstd), torch.empty_like(rstd)
        if running is not None:
            moved = _moved_by_kernel(running, norm, compute)
        if moved:
            assert running is not None
            assert not isinstance(running.momentum, Tensor)
            momentum = running.momentum
            if running.batches is not None and _is_plain(running.batches, torch.int64):
                batches = _address(running.batches)
    else:
        assert running is not None  # functional.py has checked it
        mean, var = _given(running.mean, call.num_stats, compute), _given(running.var, call.num_stats, compute)
    scratch = torch.empty(call.scratch_bytes, dtype=torch.uint8, device=CPU) if call.scratch_bytes else None
    pointers = numba.ForwardPointers(
        _address(x),
        y.data_ptr(),
        _address(residual),
        _address(w),
        _address(b),
        _address(mean),
        _address(var),
        rstd.data_ptr(),
        _address(shift),
        _address(moved[0]) if moved else 0,
        _address(moved[1]) if moved else 0,
        batches,
    )
    numba.forward(
        call,
        pointers,
        eps,
        momentum,
        norm.bounds or _NO_BOUNDS,
        0 if scratch is None else scratch.data_ptr(),
        torch.get_num_threads(),
    )
    if use_input_stats and running is not None:
        if moved:
            if moved[0] is not running.mean:
                running.mean.copy_(moved[0])
                running.var.copy_(moved[1])
        else:
            shape = (-1,) if norm.kind == "batch" else (-1, running.mean.numel())
            update_running(running, mean.view(shape), var.view(shape), v.count)
        if not batches:
            running.count_batch()
    return Forward(y, mean, var, rstd, shift)


@lru_cache(maxsize=1024)
def _launch(
    norm: Norm,
    shape: torch.Size,
    order: tuple[int, ...] | None,
    dtype: torch.dtype,
    affine: bool,
    given: bool,
    backwards: bool,
    turned: bool = False,
    added: bool = False,
) -> tuple[View, numba.Launch]:
    """The view of an input, and what is known of calls with such inputs."""
    v, clamped = view(norm, shape, order), norm.bounds is not None
    variant = numba.Variant(v, DTYPES[dtype], affine, norm.centred, given, backwards, turned, clamped, added)
    return v, numba.launch(variant)


def _address(tensor: Tensor | None) -> int:
    """Where the numbers of a tensor lie; 0 of none."""
    if tensor is None:
        return 0
    address = tensor.data_ptr()
    if address == 0:
        raise RuntimeError(
            f"a normalization expected tensors with memory; one of shape {tuple(tensor.shape)} has none: "
            "its storage was freed"
        )
    return address


def _moved_by_kernel(running: Running, norm: Norm, compute: torch.dtype) -> tuple[Tensor, ...]:
    """What a kernel is to move: running statistics where they lie, or a half type's in the type of computation."""
    if norm.kind != "batch" or isinstance(running.momentum, Tensor):
        return ()
    mean, var = running.mean, running.var
    if _is_plain(mean, compute) and _is_plain(var, compute):
        return mean, var
    if all(_is_plain(statistic, statistic.dtype) and statistic.dtype in eager.HALF for statistic in (mean, var)):
        return mean.to(compute), var.to(compute)
    return ()


def _is_plain(tensor: Tensor, dtype: torch.dtype) -> bool:
    """Whether the numbers of a tensor of this type lie at its address, one after the other."""
    return (
        type(tensor) is Tensor
        and tensor.dtype is dtype
        and tensor.is_cpu
        and tensor.is_contiguous()
        and not tensor.is_neg()
    )


def _given(statistic: Tensor, units: int, compute: torch.dtype) -> Tensor:
    """Running statistics in the compute type, repeated for each sample of an instance norm."""
    if statistic.dtype is compute and statistic.numel() == units and statistic.is_contiguous():
        return statistic.detach().resolve_neg()
    statistic = statistic.detach().resolve_neg().to(compute)
    repeats = units // statistic.numel()
    return statistic.repeat(repeats) if repeats > 1 else statistic.contiguous()


def _affine(parameter: Tensor, v: View, compute: torch.dtype) -> Tensor:
    """Weight or bias in the compute type and in memory order."""
    parameter = parameter.resolve_neg() if parameter.is_neg() else parameter
    if parameter.dtype is compute and parameter.dim() == 1 and parameter.is_contiguous():
        return parameter
    if parameter.dim() > 1:
        parameter = parameter.permute(v.affine_order)
    return parameter.to(compute).contiguous()


class _Normalize(torch.autograd.Function):
    """Forward and backward in the kernels; the backward of the backward in plain torch operations."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        residual: Tensor | None,
        norm: Norm,
        eps: float,
        running: Running | None,
        use_input_stats: bool,
    ) -> Tensor:
        y, mean, _, rstd, shift = forward(x, norm, weight, bias, eps, running, use_input_stats, residual)
        given = () if use_input_stats or running is None else (running.mean, running.var)
        # where a sum is between bounds, it is the result that tells where they hold it
        ctx.sum_bounds, result = None, None
        if residual is not None and norm.bounds is not None:
            ctx.sum_bounds, result, norm = norm.bounds, y, norm._replace(bounds=None)
        ctx.save_for_backward(x, weight, mean, rstd, shift, result, *given)
        ctx.norm, ctx.eps, ctx.use_input_stats = norm, eps, use_input_stats
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)  # its values have no part in any gradient
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd, shift, result, *given = ctx.saved_tensors
        if result is not None:
            dy = eager.pass_between(dy, result, ctx.sum_bounds)
        if torch.is_grad_enabled():
            if shift is not None:
                dy = _passed(dy, x, weight, mean, rstd, shift, ctx.norm.bounds)
            gradients = _differentiable(ctx, dy, x, weight, given)
        else:
            gradients = backward(ctx, dy, x, weight, mean, rstd, shift)
        return (*gradients, dy if ctx.needs_input_grad[3] else None, None, None, None, None)


# Function.apply without its Python part, which serves torch.func only: whatever torch.func has wrapped goes elsewhere.
_apply = super(torch.autograd.Function, _Normalize).apply


def _holding(bounds: tuple[float, float]) -> tuple[float, float]:
    """The bounds that can hold a result: NaN, which nothing is beyond, in place of an infinite one."""
    low, high = (bound if math.isfinite(bound) else math.nan for bound in bounds)
    return low, high


def _passed(
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    shift: Tensor,
    bounds: tuple[float, float],
) -> Tensor:
    """Dy where no bound holds the result, as the kernels tell it; zeros elsewhere."""
    factor = rstd if weight is None else rstd * weight.detach().to(rstd.dtype)
    high, factor, shift = (value.view(-1, *[1] * (x.dim() - 2)) for value in (mean, factor, shift))
    y = (x.detach().to(mean.dtype) - high).double() * factor + shift  # a fused multiply-add, all but
    low, top = _holding(bounds)
    return dy.masked_fill((y <= low) | (y >= top), 0.0)


def _differentiable(
    ctx: Any, dy: Tensor, x: Tensor, weight: Tensor | None, given: list[Tensor]
) -> tuple[Tensor | None, ...]:
    """Gradients that can be differentiated again: those of the eager back end."""
    bias = None
    if ctx.bias is not None:
        shape, dtype = ctx.bias
        bias = torch.zeros(shape, dtype=dtype, device=CPU, requires_grad=True)
    running = Running(given[0], given[1], 0.0) if given else None
    y = eager.normalize(x, ctx.norm, weight, bias, ctx.eps, running, ctx.use_input_stats)
    inputs = (x, weight, bias)
    needed = zip(inputs, ctx.needs_input_grad, strict=False)
    wanted = [tensor for tensor, need in needed if need and tensor is not None]
    found = iter(torch.autograd.grad(y, wanted, dy, create_graph=True))
    return tuple(next(found) if need else None for need in ctx.needs_input_grad[:3])


def backward(
    ctx: Any,
    dy: Tensor,
    x: Tensor,
    weight: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    shift: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """The gradients of x, weight and bias; ctx says of what (norm, use_input_stats, bias, needs_input_grad)."""
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    x, dy = (tensor.resolve_neg() if tensor.is_neg() else tensor for tensor in (x, dy))
    order = eager.memory_order(x)
    if order is not None:
        dy = eager.channels_last(dy)
    elif not (x.is_contiguous() and dy.is_contiguous()):
        x, dy = x.contiguous(), dy.contiguous()
    affine = weight is not None or ctx.bias is not None
    v, call = _launch(ctx.norm, x.shape, order, x.dtype, affine, not ctx.use_input_stats, True)
    w = None if weight is None else _affine(weight, v, mean.dtype)
    dx = empty_like(x) if needs_x or call.needs_dx else None
    dweight = dbias = None
    if needs_bias or (weight is not None and needs_weight):
        dweight = torch.empty(call.affine_size, dtype=mean.dtype, device=CPU)
        dbias = torch.empty_like(dweight)
    scratch = torch.empty(call.scratch_bytes, dtype=torch.uint8, device=CPU)
    pointers = numba.BackwardPointers(
        _address(x),
        _address(dy),
        _address(dx),
        _address(w),
        _address(mean),
        _address(rstd),
        _address(shift),
        _address(dweight),
        _address(dbias),
    )
    numba.backward(
        call,
        pointers,
        _NO_BOUNDS if ctx.norm.bounds is None else _holding(ctx.norm.bounds),
        scratch.data_ptr(),
        torch.get_num_threads(),
    )
    parameters = (None if weight is None else (weight.shape, weight.dtype)), ctx.bias
    return (
        dx if needs_x else None,
        _like(dweight, parameters[0], v) if needs_weight else None,
        _like(dbias, parameters[1], v) if needs_bias else None,
    )


def _like(gradient: Tensor | None, parameter: tuple[torch.Size, torch.dtype] | None, v: View) -> Tensor | None:
    """A gradient in memory order, in the shape and type of its parameter, if there is one."""
    if gradient is None or parameter is None:
        return None
    shape, dtype = parameter
    result = gradient if gradient.dtype is dtype else gradient.to(dtype)
    if len(shape) > 1:
        result = result.view([shape[axis] for axis in v.affine_order])
        result = result.permute([v.affine_order.index(axis) for axis in range(len(shape))]).contiguous()
    return result
