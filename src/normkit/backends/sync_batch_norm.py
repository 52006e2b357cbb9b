"""BatchNorm over ranks: local statistics, one collective, the same kernels.

Forward: each rank sends (count, mean, M2) of its batch and merges what all of them sent, with the true counts, in
float64; so all ranks hold the same bits. Backward: the sums of dy and dy · x_hat are added up over the ranks.

A mask or sample weights change what counts as one element, and nothing else: a rank with a mask and one without
understand each other.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, distributed

from normkit.backends.call import Call
from normkit.backends.checks import (
    check_floating_point,
    check_numbers,
    check_parameters,
    check_tensors,
    check_training_eps,
)
from normkit.backends.dispatch import choose, normalize
from normkit.backends.dtypes import HALF_DTYPES, compute_dtype
from normkit.backends.higher_order import differentiable_gradients
from normkit.backends.layout import memory_order
from normkit.backends.masked_operations import without_padding
from normkit.backends.masks import Mask
from normkit.backends.saved_tensors import save_for_backward, saved_tensors
from normkit.backends.torch_internals import is_transforming
from normkit.spec import Norm
from normkit.statistics import Moments, Running, effective_size, merge_moments, update_running

_BATCH: Final = Norm("batch")
_HEADER: Final = 3  # elements before the mean: the number of channels, the sum of weights, and that of their squares
_MESSAGE: Final = _HEADER + 2 * 1023  # elements in the first message of every rank, whatever its layer
_REFUSED: Final = -1  # in place of the number of channels: this rank cannot normalize its input
_MORE_THAN_ONE: Final = 1.0 + 1e-9  # elements; the effective number of one with a weight is 1 to rounding


@torch.compiler.disable(  # type: ignore[untyped-decorator, no-untyped-call]
    reason="SyncBatchNorm talks to other ranks, which does not belong into a graph: drop fullgraph=True"
)
def sync_batch_norm(call: Call, group: Any, weights: Tensor | None = None) -> Tensor:
    """Normalize x by the statistics of the batches of all ranks of a group; the epilogue is left to the caller.

    Args:
        call: Of a batch norm in training.
        group: The ranks.
        weights: What each position counts, of shape (N, 1, *); None: all count alike.

    Raises:
        ValueError: all ranks together have one value per channel, or none; eps that is not positive.
        RuntimeError: a shape, dtype or device that does not fit; a forced back end that cannot take the call; another
            rank refuses its input, has another number of channels, or is gone.
        NotImplementedError: torch.func or forward-mode differentiation is active; x holds no floating-point numbers;
            weights require a gradient.
    """
    try:
        _check(call, weights)
    except Exception:
        _tell_refusal(call.x, group)
        raise
    y: Tensor = _SyncBatchNorm.apply(  # type: ignore[no-untyped-call]
        call.x, call.weight, call.bias, call, group, weights
    )
    return y


def sync_masked_batch_norm(call: Call, mask: Mask, group: Any) -> Tensor:
    """Normalize what is valid on all ranks of a group by its statistics; padding becomes 0.

    Raises:
        ValueError, RuntimeError, NotImplementedError: as :func:`sync_batch_norm`, of the elements that are valid.
    """
    y = sync_batch_norm(call._replace(x=without_padding(call.x, mask)), group, mask.weights)
    return without_padding(y, mask)


def _check(call: Call, weights: Tensor | None) -> None:
    """Raise where this rank cannot normalize; a batch of one element is no such case, as other ranks may have more."""
    if is_transforming(call.x, call.weight, call.bias):
        raise NotImplementedError(
            "SyncBatchNorm in training shares statistics with other ranks, which torch.func (grad, vmap, jvp) and "
            "forward-mode differentiation cannot follow: use normkit.revert_sync_batchnorm, or evaluation mode"
        )
    if weights is not None and weights.requires_grad and torch.is_grad_enabled():
        raise NotImplementedError("SyncBatchNorm takes no gradient of sample weights: give mask.detach()")
    check_numbers(call)
    check_tensors(call)
    check_floating_point(call)
    check_parameters(call)
    check_training_eps(call)
    if call.x.numel():
        choose(call.x)  # a forced back end may refuse it


class _Share(NamedTuple):
    """What one rank tells the others: its moments, and the sum of its squared weights."""

    moments: Moments
    squares: Tensor


class _SyncBatchNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        call: Call,
        group: Any,
        weights: Tensor | None,
    ) -> Tensor:
        shares = _gather(_share(x, weights), group)
        merged = merge_moments([share.moments for share in shares])
        count = float(effective_size(merged.size, torch.stack([share.squares for share in shares]).sum()))
        if count < _MORE_THAN_ONE:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got {round(count)} on all ranks together, "
                f"input size {tuple(x.shape)} on this one"
            )
        compute = compute_dtype(x.dtype)
        var = merged.m2 / merged.size
        mean, rstd = merged.mean.to(compute), torch.rsqrt(var + call.eps).to(compute)
        save_for_backward(ctx, x, weight, mean, rstd, weights)
        ctx.total, ctx.eps, ctx.group = float(merged.size), call.eps, group
        ctx.bias = None if bias is None else (bias.shape, bias.dtype)
        if x.numel() == 0:
            y = torch.empty_like(x)
        else:
            # torch's operation takes no statistics in float32 beside parameters in half precision
            weight, bias = (None if parameter is None else parameter.to(compute) for parameter in (weight, bias))
            statistics = Running(mean, var.to(compute), 0.0)
            y = normalize(Call(x, _BATCH, weight, bias, call.eps, statistics, use_input_stats=False))
        if call.running is not None:  # last, so that a call that fails has changed nothing
            update_running(call.running, merged.mean, var, count)
            call.running.count_batch()
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, rstd, weights = saved_tensors(ctx)
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():

            def plain(bias: Tensor | None) -> Tensor:
                return _plain(ctx, x, weight, bias, weights)

            return (*differentiable_gradients(plain, x, weight, ctx.bias, needed, dy), None, None, None)
        needs_x, needs_weight, needs_bias = needed
        dx, dweight, dbias = _local(dy, x, weight, mean, rstd)
        if needs_x:
            sums = torch.cat([dbias, dweight]).double()
            _collective(distributed.all_reduce, sums, group=ctx.group)
            scale = rstd if weight is None else rstd * weight
            dx = _subtract_means(dx, x, (mean, rstd, scale), (sums / ctx.total).to(mean.dtype), weights)
        return (
            dx.to(x.dtype) if needs_x else None,
            dweight.to(weight.dtype) if needs_weight else None,
            dbias.to(ctx.bias[1]) if needs_bias else None,
            None,
            None,
            None,
        )


def _share(x: Tensor, weights: Tensor | None) -> _Share:
    """Return what this rank tells the others of its batch."""
    if weights is None:
        moments = _moments(x)
        return _Share(moments, moments.size)
    return _Share(_weighted_moments(x, weights), weights.double().square().sum())


def _weighted_moments(x: Tensor, weights: Tensor) -> Moments:
    """Return the sum of weights, and the weighted mean and M2 of each channel of this rank's batch."""
    axes, size = _not_channel(x), weights.double().sum()
    wide = x.to(weights.dtype)
    share = (weights / torch.where(size > 0, size, 1.0)).to(weights.dtype)
    mean = (wide * share).sum(axes)
    left = wide - _per_channel(mean, x)
    rest = (left * share).sum(axes)
    m2 = ((left - _per_channel(rest, x)).square() * weights).sum(axes)
    return Moments(size, mean.double() + rest, m2.double())


def _moments(x: Tensor) -> Moments:
    """Return count, mean and M2 of each channel of this rank's batch."""
    channels = x.shape[1]
    count = x.numel() // channels
    size = torch.tensor(float(count), dtype=torch.float64, device=x.device)
    if count == 0:
        return Moments(size, *torch.zeros(2, channels, dtype=torch.float64, device=x.device))
    if choose(x).name == "numba":
        from normkit.backends import kernel_passes

        own = kernel_passes.forward(Call(x, _BATCH, eps=1.0))
        return Moments(size, own.mean.double(), own.var.double() * count)
    axes = _not_channel(x)
    wide = x.to(compute_dtype(x.dtype))
    mean = wide.mean(axes)
    left = wide - _per_channel(mean, x)  # the mean was rounded: what is left of it counts too
    rest = left.mean(axes)
    return Moments(size, mean.double() + rest, (left - _per_channel(rest, x)).square().sum(axes).double())


def _gather(own: _Share, group: Any) -> list[_Share]:
    """Return the share of every rank: the collective of the forward pass.

    The message has a header, and a size that does not tell the number of channels: a back end kills the process where
    sizes differ, or waits for ever, and here the ranks can say what is wrong. What has no room in it
    (from 1,024 channels on) follows once all ranks know that they agree.
    """
    (size, mean, m2), squares = own
    channels = mean.numel()
    elements = torch.cat([size.new_full((1,), channels), size[None], squares[None], mean, m2])
    parts = _all_gather(torch.nn.functional.pad(elements[:_MESSAGE], (0, max(0, _MESSAGE - len(elements)))), group)
    found = [int(part[0]) for part in parts]
    refused = [rank for rank, count in enumerate(found) if count == _REFUSED]
    if refused:
        raise RuntimeError(
            f"SyncBatchNorm on rank {distributed.get_rank(group)} of {len(found)} has nobody to share its statistics "
            f"with: ranks {refused} refused their inputs, and their errors say why"
        )
    if found.count(channels) != len(found):
        raise RuntimeError(
            f"SyncBatchNorm expected inputs with the same number of channels on all ranks; got {found}: the ranks do "
            "not run the same layer"
        )
    if len(elements) > _MESSAGE:
        rest = _all_gather(elements[_MESSAGE:], group)
        parts = [torch.cat(both) for both in zip(parts, rest, strict=True)]
    ends = [_HEADER, _HEADER + channels, _HEADER + 2 * channels]
    return [_Share(Moments(part[1], part[ends[0] : ends[1]], part[ends[1] : ends[2]]), part[2]) for part in parts]


def _tell_refusal(x: Tensor, group: Any) -> None:
    """Take part in the collective without anything to share, so that the other ranks do not wait for this one."""
    with suppress(RuntimeError):  # what this rank has to say is its own error
        _all_gather(torch.full((_MESSAGE,), float(_REFUSED), dtype=torch.float64, device=x.device), group)


def _all_gather(elements: Tensor, group: Any) -> list[Tensor]:
    parts = [torch.empty_like(elements) for _ in range(distributed.get_world_size(group))]
    _collective(distributed.all_gather, parts, elements, group=group)
    return parts


def _collective(function: Callable[..., Any], *arguments: Any, group: Any) -> None:
    try:
        function(*arguments, group=group)
    except RuntimeError as error:
        rank, ranks = distributed.get_rank(group), distributed.get_world_size(group)
        raise RuntimeError(
            f"SyncBatchNorm on rank {rank} of {ranks} could not share its statistics: has another rank stopped, or not "
            f"called this layer? {error}"
        ) from error


def _local(dy: Tensor, x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return this rank's share: dy · weight · rstd, and the sums of dy · x_hat and dy."""
    scale = torch.ones_like(mean) if weight is None else weight
    if x.numel() and x.dtype not in HALF_DTYPES and choose(x, scale).name == "numba":
        from normkit.backends import kernel_passes

        bias = (mean.shape, mean.dtype)
        saved = kernel_passes.Saved(x, scale, mean, rstd, memory_order(x), _BATCH, bias, use_input_stats=False)
        dx, dweight, dbias = kernel_passes.backward(dy, saved)
        assert dx is not None
        assert dweight is not None
        assert dbias is not None
        return dx, dweight, dbias
    axes = _not_channel(x)
    wide = dy.to(mean.dtype)
    x_hat = (x.to(mean.dtype) - _per_channel(mean, x)) * _per_channel(rstd, x)
    return wide * _per_channel(scale * rstd, x), (wide * x_hat).sum(axes), wide.sum(axes)


def _subtract_means(
    dx: Tensor, x: Tensor, stats: tuple[Tensor, Tensor, Tensor], means: Tensor, weights: Tensor | None
) -> Tensor:
    """Subtract from dy · weight · rstd what flows through the statistics: mean, rstd, and weight · rstd."""
    mean, rstd, scale = stats
    mean_dy, mean_dy_x_hat = means.chunk(2)
    deviation = x.to(dx.dtype) - _per_channel(mean, x)
    through_mean = _per_channel(scale * mean_dy, x)
    if weights is not None:  # an element moves the statistics by its weight
        deviation, through_mean = deviation * weights, through_mean * weights
    dx = dx.addcmul_(deviation, _per_channel(scale * rstd * mean_dy_x_hat, x), value=-1)
    return dx.sub_(through_mean)


class _AllReduce(torch.autograd.Function):
    """The sum over ranks; its gradient is the sum over ranks, so it can be differentiated any number of times."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        total = value.detach().clone()
        _collective(distributed.all_reduce, total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _AllReduce.apply(gradient, ctx.group), None  # type: ignore[no-untyped-call]


def _plain(ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, weights: Tensor | None) -> Tensor:
    """Return the result by plain operations and sums over ranks."""
    axes = _not_channel(x)

    def mean_of(value: Tensor) -> Tensor:
        weighted = value if weights is None else value * weights
        mean: Tensor = _AllReduce.apply(weighted.sum(axes), ctx.group) / ctx.total  # type: ignore[no-untyped-call]
        return mean

    wide = x.to(compute_dtype(x.dtype))
    deviation = wide - _per_channel(mean_of(wide), x)
    var = mean_of(deviation.square())
    y = deviation * _per_channel(torch.rsqrt(var + ctx.eps), x)
    y = y if weight is None else y * _per_channel(weight, x)
    return (y if bias is None else y + _per_channel(bias, x)).to(x.dtype)


def _not_channel(x: Tensor) -> tuple[int, ...]:
    return tuple(axis for axis in range(x.dim()) if axis != 1)


def _per_channel(value: Tensor, x: Tensor) -> Tensor:
    return value.view(1, -1, *[1] * (x.dim() - 2))
