"""The Numba kernels as a differentiable torch operation."""

from typing import Any

import torch
from torch import Tensor

from normkit.backends import eager, kernel_passes
from normkit.backends.call import Call, needs_graph
from normkit.backends.epilogue import bounds_backward
from normkit.backends.higher_order import differentiable_gradients
from normkit.backends.kernel_passes import Saved, finite_bounds
from normkit.backends.saved_tensors import save_for_backward, saved_tensors
from normkit.backends.torch_internals import fast_apply, is_batch_of_gradients
from normkit.statistics import Running


def normalize(call: Call) -> Tensor:
    """Normalize x; the epilogue's residual, if any, has the shape and dtype of x."""
    residual = call.residual
    if not (needs_graph(call) or (residual is not None and residual.requires_grad and torch.is_grad_enabled())):
        return kernel_passes.forward(call).y
    if call.x.is_inference():  # such a tensor cannot be saved for backward
        call = call._replace(x=call.x.clone())
    if not call.use_input_stats and call.running is not None:
        # copies: a training step between this pass and its backward updates the buffers
        mean, var, momentum, _ = call.running
        call = call._replace(running=Running(mean.clone(), var.clone(), momentum))
    y: Tensor = _apply(call.x, call.weight, call.bias, residual, call)
    return y


class _Normalize(torch.autograd.Function):
    """Forward and backward in the kernels; the backward of the backward in plain torch operations."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None, call: Call
    ) -> Tensor:
        y, mean, _, rstd, shift, ctx.order = kernel_passes.forward(call)
        bounds = call.bounds
        # where bounds hold a sum, it is the result that tells where
        ctx.sum_bounds = None if residual is None else bounds
        result = None if ctx.sum_bounds is None else y
        precomputed = () if call.use_input_stats or call.running is None else call.running[:2]
        save_for_backward(ctx, x, weight, mean, rstd, shift, result, *precomputed)
        ctx.norm, ctx.eps, ctx.use_input_stats = call.norm, call.eps, call.use_input_stats
        ctx.bounds = bounds if residual is None else None
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)  # its values have no part in any gradient
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd, shift, result, *precomputed = saved_tensors(ctx)
        if result is not None:
            dy = bounds_backward(dy, result, ctx.sum_bounds)
        saved = Saved(x, weight, mean, rstd, ctx.order, ctx.norm, ctx.bias, ctx.use_input_stats, shift, ctx.bounds)
        needed = ctx.needs_input_grad
        if torch.is_grad_enabled() or is_batch_of_gradients(dy):
            if shift is not None:
                dy = _inside_bounds(dy, saved)
            running = Running(precomputed[0], precomputed[1], 0.0) if precomputed else None

            def plain(bias: Tensor | None) -> Tensor:
                return eager.normalize(Call(x, ctx.norm, weight, bias, ctx.eps, running, ctx.use_input_stats))

            gradients = differentiable_gradients(plain, x, weight, ctx.bias, needed[:3], dy)
        else:
            gradients = kernel_passes.backward(dy, saved, needed[:3])
        return (*gradients, dy if needed[3] else None, None)


_apply = fast_apply(_Normalize)  # whatever torch.func has wrapped goes elsewhere


def _inside_bounds(dy: Tensor, saved: Saved) -> Tensor:
    """Return dy where no bound holds the result, as the kernels tell it; zeros elsewhere."""
    x, weight, mean, rstd, _, _, _, _, shift, bounds = saved
    assert shift is not None
    assert bounds is not None
    factor = rstd if weight is None else rstd * weight.detach().to(rstd.dtype)
    mean_hi, factor, shift = (value.view(-1, *[1] * (x.dim() - 2)) for value in (mean, factor, shift))
    y = (x.detach().to(mean.dtype) - mean_hi).double() * factor + shift  # a fused multiply-add, all but
    lower, upper = finite_bounds(bounds)
    return dy.masked_fill((y <= lower) | (y >= upper), 0.0)
