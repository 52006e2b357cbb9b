"""Context managers that say when running statistics are updated: never, not by broken batches, or once for many.

All three put other tensors in the place of a layer's running buffers while it runs. So they work with any layer that
keeps its statistics in running_mean and running_var, torch's too, and the buffers themselves stay the same objects.
Two of them work after each forward pass. For that the layer gets another class for the block, and no hook: compiled
graphs notice a new class, but not a new hook.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.instancenorm import _InstanceNorm

from normkit.backends.masks import Mask, read_mask
from normkit.errors import UserError
from normkit.layers.batchnorm import BatchNormForward
from normkit.layers.instancenorm import InstanceNormForward
from normkit.model.classes import base_class, combine, require_module, set_base_class
from normkit.statistics import Moments, effective_size, merge_moments

__all__ = ["accumulate_stats", "no_stats_update", "skip_nonfinite"]

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@contextmanager
def no_stats_update(model: nn.Module) -> Iterator[None]:
    """Leave the running statistics of a model as they are, whatever runs in the block.

    Layers in training mode normalize by their batch as before. They update copies of the running statistics (and of
    num_batches_tracked), which the end of the block throws away. Use it for the recomputation of gradient
    checkpointing::

        checkpoint(block, x, use_reentrant=False,
                   context_fn=lambda: (nullcontext(), normkit.no_stats_update(block)))

    and for the second forward pass of a GAN's or a contrastive step. If a state_dict is loaded in the block, its
    running statistics are thrown away too.

    Args:
        model: The model, or the part of it that is to be left alone.
    Raises:
        UserError: model is no torch.nn.Module.
    """
    saved = [(module, _running(module)) for _, module in _tracking(model, "no_stats_update")]
    try:
        for module, buffers in saved:
            module._buffers.update({name: buffer.detach().clone() for name, buffer in buffers.items()})
        yield
    finally:
        for module, buffers in saved:
            module._buffers.update(buffers)


class skip_nonfinite:  # noqa: N801  (used like a function, as torch.no_grad is)
    """Leave the running statistics as they were after a batch with NaN or infinity, and count it.

    One such batch otherwise spoils every evaluation that follows. Only the statistics are protected: the batch's
    result and gradients are what they are.

    Args:
        model: The model, or any part of it.
    Raises:
        UserError: model is no torch.nn.Module, or a layer is TorchScript.

    >>> import normkit
    >>> layer = normkit.BatchNorm1d(2)
    >>> with normkit.skip_nonfinite(layer) as guard:
    ...     _ = layer(torch.tensor([[1.0, float("inf")], [2.0, 3.0]]))
    >>> guard.skipped, layer.running_mean
    ({'': 1}, tensor([0., 0.]))
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = list(_tracking(model, "skip_nonfinite"))
        self._counts: dict[str, Tensor] = {}
        self._exit = ExitStack()

    @property
    def skipped(self) -> dict[str, int]:
        """Number of batches that each layer skipped, by its name; layers that skipped none are not listed."""
        counts = {name: int(count) for name, count in self._counts.items()}
        return {name: count for name, count in counts.items() if count}

    def __enter__(self) -> "skip_nonfinite":
        for name, module in self._layers:
            count = torch.zeros((), dtype=torch.int64, device=_running(module)["running_mean"].device)
            self._counts[name] = count
            _override(module, _SkipNonfinite, "_normkit_skipped", count, self._exit)
        return self

    def __exit__(self, *exception: object) -> None:
        self._exit.close()


class _SkipNonfinite(nn.Module):
    """A layer that stores its statistics only where they are finite."""

    _normkit_skipped: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return super().forward(*args, **kwargs)
        own = _running(self)
        for name, buffer in own.items():
            self._buffers[name] = buffer.detach().clone()
        try:
            y = super().forward(*args, **kwargs)
            new = _running(self)
        finally:
            self._buffers.update(own)
        with torch.no_grad():
            finite = new["running_mean"].isfinite().all() & new["running_var"].isfinite().all()
            for name, buffer in own.items():
                buffer.copy_(torch.where(finite, new[name], buffer))
            self._normkit_skipped.add_(~finite)
        return y


@contextmanager
def accumulate_stats(model: nn.Module) -> Iterator[None]:
    """Take all batches of the block as one: the running statistics are updated once, by all of them, when it ends.

    With gradient accumulation, ``momentum`` then means the same as in a step with the whole batch. Each micro-batch is
    still normalized by its own statistics. If the block raises, nothing is stored.

    Args:
        model: The model, or any part of it.
    Raises:
        UserError: model is no torch.nn.Module, a layer is TorchScript, or a SyncBatchNorm, whose batches are those of
            all ranks already.
    """
    layers = list(_tracking(model, "accumulate_stats"))
    for name, module in layers:
        if hasattr(module, "process_group"):
            raise UserError(
                f"accumulate_stats expected layers that see one batch each; {name or 'the model'} is a "
                f"{type(module).__name__}, which shares statistics over ranks: use revert_sync_batchnorm first"
            )
    seen: list[tuple[nn.Module, Tensor]] = []
    with ExitStack() as stack:
        for _, module in layers:
            running = _running(module)["running_mean"]
            packed = torch.zeros(2 + 2 * running.numel(), dtype=torch.float64, device=running.device)
            seen.append((module, packed))
            _override(module, _AccumulateStats, "_normkit_seen", packed, stack)
        yield
    for module, packed in seen:
        _store(module, *_unpack(packed))


class _AccumulateStats(nn.Module):
    """A layer that adds its statistics to those of the batches before."""

    _normkit_seen: Tensor
    momentum: float | None

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        if not self.training:
            return super().forward(*args, **kwargs)
        own, momentum = _running(self), self.momentum
        for name, buffer in own.items():
            self._buffers[name] = torch.zeros_like(buffer)
        self.momentum = 1.0  # so that what is stored is the statistic of this batch
        try:
            y = super().forward(*args, **kwargs)
            new = _running(self)
        finally:
            self.momentum = momentum
            self._buffers.update(own)
        with torch.no_grad():
            mean, var = new["running_mean"].double(), new["running_var"].double()
            seen, squares = _unpack(self._normkit_seen.clone())
            size, own_squares = _size(self, y, _mask_of(self, y, kwargs))
            if isinstance(self, _InstanceNorm):  # its batch statistics are averages over the samples
                merged = merge_moments([seen, Moments(size, mean, var)])._replace(m2=seen.m2 + size * var)
            else:
                effective = effective_size(size, own_squares).clamp(min=1)  # less than one: nothing counts
                merged = merge_moments([seen, Moments(size, mean, var * (size * (effective - 1) / effective))])
            self._normkit_seen.copy_(
                torch.cat([merged.size[None], (squares + own_squares)[None], merged.mean, merged.m2])
            )
        return y


def _unpack(packed: Tensor) -> tuple[Moments, Tensor]:
    """Read moments, and the sum of squared weights, from the one tensor that a compiled graph can change in place."""
    mean, m2 = packed[2:].chunk(2)
    return Moments(packed[0], mean, m2), packed[1]


def _mask_of(module: nn.Module, y: Tensor, keywords: dict[str, Any]) -> Mask | None:
    """Return the mask that a layer of ours was called with, if it was."""
    if not isinstance(module, (BatchNormForward, InstanceNormForward)):
        return None
    given = [keywords.get(name) for name in ("mask", "lengths")]
    return read_mask(y, *given) if any(value is not None for value in given) else None


def _size(module: nn.Module, y: Tensor, mask: Mask | None) -> tuple[Tensor, Tensor]:
    """Return the weight of a batch, and the sum of its squared weights: of elements, or of samples in instance norm."""
    one = torch.ones((), dtype=torch.float64, device=y.device)
    if isinstance(module, _InstanceNorm):
        unbatched = module._get_no_batch_dim()  # type: ignore[no-untyped-call]
        samples = one * (1 if y.dim() == unbatched else y.shape[0])
        used = samples if mask is None else mask.valid.flatten(1).any(1).sum().double()
        return used, used
    if mask is None:
        count = one * (y.numel() // _running(module)["running_mean"].numel())
        return count, count
    weights = mask.weights.detach().double()
    return weights.sum(), weights.square().sum()


def _store(module: nn.Module, moments: Moments, squares: Tensor) -> None:
    """Update the running statistics by the moments of all batches, if there were any."""
    if not moments.size:
        return
    buffers = _running(module)
    momentum: Any = module.momentum
    with torch.no_grad():
        if "num_batches_tracked" in buffers and not isinstance(module, _InstanceNorm):  # which never counts
            buffers["num_batches_tracked"] += 1
            if momentum is None:
                momentum = 1.0 / float(buffers["num_batches_tracked"])
        var = moments.m2 / moments.size
        if not isinstance(module, _InstanceNorm):
            effective = effective_size(moments.size, squares)
            var = var * (effective / (effective - 1))
        for name, value in (("running_mean", moments.mean), ("running_var", var)):
            buffers[name].lerp_(value.to(buffers[name].dtype), 0.0 if momentum is None else momentum)


def _override(module: nn.Module, over: type[nn.Module], attribute: str, value: Any, stack: ExitStack) -> None:
    """Put a class over the one that a module has, and an attribute for it, until the stack is closed."""
    before = base_class(module)
    after = combine(over, before)

    def undo() -> None:
        vars(module).pop(attribute, None)
        if base_class(module) is after:
            set_base_class(module, before)

    stack.callback(undo)
    vars(module)[attribute] = value
    set_base_class(module, after)


def _tracking(model: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and module of each layer that keeps running statistics."""
    require_module(model, name)
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            if any(key == "running_mean" for key, _ in module.named_buffers(recurse=False)):
                raise UserError(f"{name} cannot reach into TorchScript, which {path or 'the model'} is")
        elif {"running_mean", "running_var"} <= set(_running(module)):
            yield path, module


def _running(module: nn.Module) -> dict[str, Tensor]:
    """Return the running buffers that a module has."""
    found: dict[str, Tensor] = {}
    for name in _BUFFERS:
        buffer = module._buffers.get(name)
        if buffer is not None:
            found[name] = buffer
    return found
