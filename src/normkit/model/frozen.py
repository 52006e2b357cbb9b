"""What a frozen layer is: a class over the layer's own, by which it evaluates whatever mode it is put into."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from normkit.backends.torch_internals import fast_apply, is_tracing, is_transforming
from normkit.layers.tracing import is_no_tensor, record
from normkit.model.classes import Cover, base_class, set_cover
from normkit.model.norms import channel_axis, has_known_forward, running_stats

TRAINABLE = "_normkit_trainable"
"""The attribute that remembers, on a frozen layer, which of its parameters were trained before."""


class Frozen(Cover):
    """A layer that is never in training mode, and remembers the mode that was asked for.

    Whoever reads ``training`` finds False; what train(), eval() or an assignment has said is kept beneath it, and is
    the layer's mode again when it is uncovered.
    """

    @property
    def training(self) -> bool:
        """Whether it normalizes by the batch: never."""
        return False

    @training.setter
    def training(self, mode: bool) -> None:
        vars(self)["training"] = mode

    def train(self, mode: bool = True) -> "Frozen":  # noqa: FBT001, FBT002  (torch's signature)
        """Remember a mode, and pass it on to the layers inside."""
        super().train(mode=False)  # a layer of somebody's own may keep more than `training`
        for child in self.children():
            child.train(mode)
        self.training = mode
        return self

    def extra_repr(self) -> str:
        """Return what the layer says of itself, and that it is frozen."""
        return ", ".join(filter(None, (super().extra_repr(), "frozen")))


class FrozenAffine(Frozen):
    """A frozen norm of torch.nn or normkit: for each channel it is a factor and a summand, and its gradient the factor.

    The backward pass of a norm in evaluation keeps the input, for the gradient of the weight. Where that is not asked
    for, this one keeps the factor alone.
    """

    def forward(self, input: Any, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; keep the input for the backward pass only where a gradient needs it."""
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, FrozenAffine.forward, input, *args, **kwargs)
        if args or kwargs or not _is_scaling(self, input):
            return super().forward(input, *args, **kwargs)
        return _apply(input, super().forward, _factor(self, input))


class _Scaling(torch.autograd.Function):
    """A forward pass that is linear in each channel, with its slope."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, forward: Callable[[Tensor], Tensor], factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return forward(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None]:
        (factor,) = ctx.saved_tensors
        return (dy * factor).to(dy.dtype), None, None


_apply = fast_apply(_Scaling)  # what torch.func has wrapped goes elsewhere


def _is_scaling(layer: nn.Module, x: Any) -> bool:
    """Whether the gradient of x is all that is asked for, by nothing that looks inside."""
    return (
        type(x) is Tensor
        and x.requires_grad
        and torch.is_grad_enabled()
        and not any(value is not None and value.requires_grad for value in (layer.weight, layer.bias))
        and not torch.compiler.is_compiling()
        and not is_tracing()
        and not is_transforming(x)
    )


def _factor(layer: Any, x: Tensor) -> Tensor:
    """Return what each channel is multiplied by, in a shape that fits x and in single precision at least."""
    dtype = torch.promote_types(layer.running_var.dtype, torch.float32)
    factor = torch.rsqrt(layer.running_var.to(dtype) + layer.eps)
    if layer.weight is not None:
        factor = factor * layer.weight.detach().to(dtype)
    return factor.view(-1, *[1] * (x.dim() - channel_axis(layer, x) - 1))


class _Trial(NamedTuple):
    """An input on which a layer is tried, and another with the same first sample."""

    x: Tensor
    other: Tensor


def cover_for(module: nn.Module) -> type[Frozen] | str:
    """Return the class that freezes a layer with running statistics, or why it cannot be frozen.

    The norms of torch.nn and normkit are known. A layer with a forward pass of its own is tried: covered, its result
    for a sample must not depend on the other samples, and its buffers must stay, with gradients and without.
    """
    if isinstance(module, torch.jit.ScriptModule):
        return "it is TorchScript, compiled already"
    if has_known_forward(module):
        return FrozenAffine if base_class(module).forward.__qualname__ in _SCALES else Frozen
    with torch.random.fork_rng(devices=[]):
        return _why_not(module) or Frozen


_SCALES = (
    "_BatchNorm.forward",
    "SyncBatchNorm.forward",
    "_InstanceNorm.forward",
    "BatchNormForward.forward",
    "InstanceNormForward.forward",
)
"""The forward passes that normalize and do nothing else; that of BatchNormAct2d is not one."""


def _why_not(module: nn.Module) -> str | None:
    """Try a layer of somebody's own; return why it cannot be frozen."""
    stats = running_stats(module)["running_mean"]
    if stats.is_meta:
        return "its statistics are on the meta device, so it cannot be tried"
    try:
        layer = copy.deepcopy(module)
    except Exception as error:  # somebody else's code: whatever it raises
        return f"it cannot be tried: a copy raised {type(error).__name__}"
    set_cover(layer, Frozen)
    layer.train()
    trials = (_trial(stats, axes) for axes in (4, 2, 3, 5))
    trial = next((trial for trial in trials if _takes(layer, trial.x)), None)
    if trial is None:
        return f"it cannot be tried: it takes no input (N, {stats.numel()}, *)"
    buffers = [buffer.clone() for buffer in layer.buffers()]
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            first = layer(trial.x)[0]
            if not all(map(torch.equal, layer.buffers(), buffers)):
                return "it updates its running statistics in evaluation too"
            if not torch.allclose(first, layer(trial.other)[0], rtol=1e-4, atol=1e-5, equal_nan=True):
                return "its result for a sample depends on the other samples in evaluation too"
    return None


def _trial(stats: Tensor, axes: int) -> _Trial:
    x = torch.randn(4, stats.numel(), *[5] * (axes - 2), dtype=stats.dtype, device=stats.device)
    other = x * 3 + 7
    other[0] = x[0]
    return _Trial(x, other)


def _takes(layer: nn.Module, x: Tensor) -> bool:
    try:
        with torch.no_grad():
            return isinstance(layer(x), Tensor)
    except Exception:  # somebody else's code: whatever it raises, it does not take it
        return False
