"""The masked Numba kernels as a differentiable torch operation."""

from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from normkit.backends.addresses import address
from normkit.backends.call import Call, needs_graph
from normkit.backends.dtypes import KERNEL_DTYPES, compute_dtype
from normkit.backends.higher_order import differentiable_gradients
from normkit.backends.huge_pages import empty_like
from normkit.backends.kernel_passes import CPU
from normkit.backends.layout import channels_last, memory_order
from normkit.backends.masked_operations import channels_together, normalize_by_operations, update_running_masked
from normkit.backends.masks import Mask, Sums, sums_of
from normkit.backends.numba import masked
from normkit.backends.saved_tensors import save_for_backward, saved_tensors
from normkit.backends.torch_internals import fast_apply, is_batch_of_gradients


def normalize(call: Call, mask: Mask, sums: Sums) -> Tensor:
    """Normalize what is valid of x, and update the running statistics; padding becomes 0."""
    x = call.x
    if call.norm.kind == "batch" and x.dim() == 2:  # one long row of each channel, rather than many of one element
        turned = Mask(mask.valid.T[None], mask.weights.T[None], mask.weighted)
        return _contiguous(call._replace(x=x.T[None]), turned, sums)[0].T.contiguous()
    if memory_order(x) is not None:  # the kernels walk rows of positions
        return channels_last(_contiguous(call._replace(x=x.contiguous()), mask, sums))
    return _contiguous(call, mask, sums)


def _contiguous(call: Call, mask: Mask, sums: Sums) -> Tensor:
    """Normalize to contiguous memory."""
    if not needs_graph(call):
        return _forward(call, mask, sums)[0]
    if call.x.is_inference():  # such a tensor cannot be saved for backward
        call = call._replace(x=call.x.clone())
    y: Tensor = _apply(call.x, call.weight, call.bias, call, mask, sums)
    return y


class _Saved(NamedTuple):
    """What a backward pass takes from its forward pass.

    Args:
        weights: Of positions, with a margin on both sides.
        totals: The sum of the weights of a statistic.
        mean, mean_lo, rstd: Of each statistic.
    """

    weights: Tensor
    totals: Tensor
    mean: Tensor
    mean_lo: Tensor
    rstd: Tensor


class _Normalize(torch.autograd.Function):
    """Forward and backward in the kernels; the backward of the backward in plain torch operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, call: Call, mask: Mask, sums: Sums
    ) -> Tensor:
        y, saved = _forward(call, mask, sums)
        save_for_backward(ctx, x, weight, *mask[:2], *saved)
        ctx.norm, ctx.eps, ctx.weighted = call.norm, call.eps, mask.weighted
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)  # its values have no part in any gradient
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, valid, weights, *saved = saved_tensors(ctx)
        mask, needed = Mask(valid, weights, ctx.weighted), ctx.needs_input_grad[:3]
        if torch.is_grad_enabled() or is_batch_of_gradients(dy):

            def plain(bias: Tensor | None) -> Tensor:
                return normalize_by_operations(Call(x, ctx.norm, weight, bias, ctx.eps), mask, sums_of(mask))

            return (*differentiable_gradients(plain, x, weight, ctx.bias, needed, dy), None, None, None)
        call = Call(x, ctx.norm, weight)
        dx, dweight, dbias = _backward(dy, call, _Saved(*saved), needs_x=needed[0])
        return (
            dx,
            None if weight is None or not needed[1] else dweight.to(weight.dtype),
            dbias.to(ctx.bias[1]) if needed[2] else None,
            None,
            None,
            None,
        )


_apply = fast_apply(_Normalize)  # whatever torch.func has wrapped goes elsewhere


def _geometry(call: Call) -> masked.Geometry:
    samples, channels, *spatial = call.x.shape
    return masked.Geometry(samples, channels, prod(spatial), call.norm.kind == "batch", channels_together(call))


def _forward(call: Call, mask: Mask, sums: Sums) -> tuple[Tensor, _Saved]:
    """Return the result, and what a backward pass needs."""
    x, geometry = _in_rows(call.x), _geometry(call)
    compute = compute_dtype(x.dtype)
    y = empty_like(x)
    weights = _with_margin(mask.weights)
    totals = sums.totals * geometry.spans
    if geometry.over_batch:
        totals = totals.sum()
    mean, mean_lo, var, rstd = torch.empty(4, geometry.num_stats, dtype=compute, device=CPU).unbind()
    weight, bias = _parameters(call, compute)
    pointers = masked.ForwardPointers(
        address("the input", x, x.numel(), x.dtype),
        y.data_ptr(),
        *_addresses_of_mask(weights, totals, geometry, compute),
        address("weight", weight, geometry.channels, compute),
        address("bias", bias, geometry.channels, compute),
        *(tensor.data_ptr() for tensor in (mean, mean_lo, var, rstd)),
    )
    launch = masked.launch(geometry, KERNEL_DTYPES[x.dtype])
    masked.run_forward(launch, pointers, call.eps, torch.get_num_threads())
    if call.running is not None:
        shape = (-1, call.running.mean.numel())
        update_running_masked(call.running, mean.view(shape), var.view(shape), sums)
    return y, _Saved(weights, totals, mean, mean_lo, rstd)


def _backward(dy: Tensor, call: Call, saved: _Saved, *, needs_x: bool) -> tuple[Tensor | None, Tensor, Tensor]:
    """Return dx, if it is needed, and dweight and dbias in the compute dtype."""
    x, dy, geometry = _in_rows(call.x), _in_rows(dy), _geometry(call)
    compute = compute_dtype(x.dtype)
    weights, totals, mean, mean_lo, rstd = (tensor.contiguous() for tensor in saved)
    dx = empty_like(x) if needs_x else None
    by_row = torch.empty(2, geometry.num_stats * geometry.spans, dtype=compute, device=CPU)
    weight, _ = _parameters(call, compute)
    pointers = masked.BackwardPointers(
        address("the input", x, x.numel(), x.dtype),
        address("the gradient", dy, x.numel(), x.dtype),
        0 if dx is None else dx.data_ptr(),
        *_addresses_of_mask(weights, totals, geometry, compute),
        address("weight", weight, geometry.channels, compute),
        *(address("a statistic", statistic, geometry.num_stats, compute) for statistic in (mean, mean_lo, rstd)),
        *(tensor.data_ptr() for tensor in by_row),
    )
    masked.run_backward(masked.launch(geometry, KERNEL_DTYPES[x.dtype]), pointers, torch.get_num_threads())
    dweight, dbias = by_row.view(2, -1, x.shape[1]).sum(1, dtype=torch.float64).to(compute)
    return dx, dweight, dbias


def _in_rows(x: Tensor) -> Tensor:
    """Return x in contiguous memory. One sample without its batch axis: torch transposes two axes much faster."""
    return x.resolve_neg().squeeze(0).contiguous().view(x.shape)


def _parameters(call: Call, compute: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return weight and bias in the compute dtype: ones and zeros where there are none."""
    channels = call.x.shape[1]
    weight = torch.ones(channels, dtype=compute, device=CPU) if call.weight is None else call.weight
    bias = torch.zeros(channels, dtype=compute, device=CPU) if call.bias is None else call.bias
    return _dense(weight, compute), _dense(bias, compute)


def _dense(parameter: Tensor, compute: torch.dtype) -> Tensor:
    return parameter.detach().resolve_neg().to(compute).contiguous()


def _with_margin(weights: Tensor) -> Tensor:
    """Return weights of positions behind a margin and before another."""
    padded = torch.zeros(weights.numel() + 2 * masked.MARGIN, dtype=weights.dtype, device=CPU)
    padded[masked.MARGIN : -masked.MARGIN] = weights.detach().reshape(-1)
    return padded


def _addresses_of_mask(
    weights: Tensor, totals: Tensor, geometry: masked.Geometry, compute: torch.dtype
) -> tuple[int, int]:
    """Return where the weights of positions begin, behind their margin, and their totals."""
    positions = geometry.samples * geometry.size
    margin = address("the mask", weights, positions + 2 * masked.MARGIN, compute)
    num_totals = 1 if geometry.over_batch else geometry.samples
    return margin + masked.MARGIN * weights.itemsize, address("its totals", totals, num_totals, torch.float64)
