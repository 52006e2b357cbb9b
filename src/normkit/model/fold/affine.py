"""What a norm in evaluation mode multiplies and adds to each channel: read from its numbers, verified by running it.

A norm with running statistics is nothing else: ``norm(x) = x * scale + shift``. Every other one computes statistics of
its input, and multiplies and adds behind that: ``norm(x) = neutral(x) * scale + shift``, where `neutral` is the same
norm with neutral weights.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, nn

from normkit.model.norms import NormLayer, running_stats
from normkit.model.recipes import eps_of

__all__ = ["Affine", "affine_of", "along", "probe", "relative_difference"]

_ACTIVATION: Final = "act"  # the child of timm's and normkit's BatchNormAct2d that runs behind the norm
_DROP: Final = "drop"  # and the one before that


@dataclass(frozen=True)
class Affine:
    """What a norm multiplies and adds.

    Args:
        scale: A factor for each channel, in float64.
        shift: A summand for each channel.
        axis: The axis of the channels in the norm's input.
        neutral: The values of the parameters with which the norm multiplies and adds nothing; empty for a norm with
            running statistics, of which nothing is left.
        activation: The names of the norm's children that run behind it.
    """

    scale: Tensor
    shift: Tensor
    axis: int
    neutral: Mapping[str, float] = field(default_factory=dict)
    activation: tuple[str, ...] = ()

    @property
    def removes_norm(self) -> bool:
        """Whether nothing is left of the norm but its activation."""
        return not self.neutral

    @property
    def does_nothing(self) -> bool:
        """Whether every channel is multiplied by one and zero is added."""
        return bool((self.scale == 1).all()) and not self.has_shift

    @property
    def has_shift(self) -> bool:
        """Whether anything is added anywhere."""
        return bool((self.shift != 0).any())

    def apply(self, x: Tensor) -> Tensor:
        """Multiply and add."""
        return x * along(self.scale, x, self.axis) + along(self.shift, x, self.axis)


def affine_of(layer: NormLayer, shape: torch.Size, tolerance: float) -> Affine | str:
    """Return what a norm multiplies and adds, or why that cannot be said.

    Args:
        layer: The norm, in float64 and in evaluation mode.
        shape: The shape of its input.
        tolerance: How far results may differ, relative to the largest.
    """
    module = _without_hooks(layer.module)
    x = probe(shape, module)
    try:
        candidates = list(_candidates(layer, module, len(shape)))
        found = next((one for one in candidates if _error(one, module, x) <= tolerance), None)
    except Exception as error:  # somebody else's code
        return f"it raised {type(error).__name__} on random input: {error}"
    if found is None:
        return _why_none(module, candidates)
    if not bool(torch.isfinite(found.scale).all() and torch.isfinite(found.shift).all()):
        return "what it multiplies or adds is not finite"
    return found


def relative_difference(got: Tensor, expected: Tensor) -> float:
    """Return the largest difference, relative to the largest value; infinity where one alone is finite."""
    if got.shape != expected.shape:
        return float("inf")
    got, expected = (x.detach().to(torch.complex128 if x.is_complex() else torch.float64) for x in (got, expected))
    differ = (got != expected) & ~(got.isnan() & expected.isnan())
    if not bool(differ.any()):
        return 0.0
    size = expected[expected.isfinite()].abs().max() if bool(expected.isfinite().any()) else expected.new_ones(())
    error = float(((got - expected)[differ].abs().max() / size.abs().clamp(min=1e-300)).real)
    return error if error < float("inf") else float("inf")  # NaN too


def along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """Return one value a channel in a shape that broadcasts against x."""
    sizes = [1] * x.dim()
    sizes[axis] = -1
    return values.reshape(sizes)


def probe(shape: torch.Size, module: nn.Module) -> Tensor:
    """Return random numbers of a shape, of which the first axis may be shorter: nothing runs along it in evaluation."""
    short = torch.Size((min(shape[0], 2), *shape[1:])) if len(shape) > 2 else shape
    device = next((tensor.device for tensor in (*module.parameters(), *module.buffers())), None)
    generator = torch.Generator().manual_seed(0)
    return (2 * torch.randn(short, generator=generator, dtype=torch.float64) + 0.7).to(device)


def _candidates(layer: NormLayer, module: nn.Module, dims: int) -> Iterator[Affine]:
    """Yield what a norm may multiply and add; which one is right is found by running it."""
    weight, bias = (_values(module, name) for name in ("weight", "bias"))
    stats = running_stats(module)
    if stats and not module.training:
        eps = eps_of(module)
        if eps is None:
            return
        mean, var = (stats[name].flatten() for name in ("running_mean", "running_var"))
        scale = torch.rsqrt(var + eps) * (1.0 if weight is None else weight)
        children = {name for name, _ in module.named_children()}
        activation = tuple(name for name in (_DROP, _ACTIVATION) if name in children)
        yield Affine(scale, (0.0 if bias is None else bias) - mean * scale, 1, activation=activation)
        return
    if weight is None and bias is None:
        return
    size = next(values for values in (weight, bias) if values is not None)
    shift = torch.zeros_like(size) if bias is None else bias
    axes = (dims - 1, 1) if layer.kind in ("layer", "rms", "own") else (1,)
    for neutral_weight, scale in ((1.0, size if weight is not None else torch.ones_like(size)), (0.0, 1 + size)):
        neutral = {} if weight is None else {"weight": neutral_weight}
        neutral |= {} if bias is None else {"bias": 0.0}
        yield from (Affine(scale, shift, axis, neutral) for axis in axes)


def _values(module: nn.Module, name: str) -> Tensor | None:
    """Return a parameter or buffer as one value a channel."""
    values = getattr(module, name, None)
    return values.detach().flatten() if isinstance(values, Tensor) else None


def _error(affine: Affine, module: nn.Module, x: Tensor) -> float:
    """Return how far a norm is from what it should multiply and add, on random input."""
    if affine.axis >= x.dim() or x.shape[affine.axis] != affine.scale.numel():
        return float("inf")
    expected = module(x.clone())
    inner = x
    if affine.neutral:
        neutral = deepcopy(module)
        for name, value in affine.neutral.items():
            neutral.get_parameter(name).fill_(value)
        inner = neutral(x.clone())
    got = affine.apply(inner)
    for name in affine.activation:
        got = module.get_submodule(name)(got)
    return relative_difference(got, expected)


def _why_none(module: nn.Module, candidates: list[Affine]) -> str:
    if candidates:
        if any(values.numel() != candidates[0].scale.numel() for values in module.parameters(recurse=False)):
            return "its weights do not have one value for each channel"
        if isinstance(module, nn.LayerNorm | nn.RMSNorm) and len(module.normalized_shape) > 1:
            return "it has a weight for each place of several axes, not for each channel"
        return "x * scale + shift with its own numbers did not give what it gives on random input"
    if running_stats(module) and eps_of(module) is None:
        return "it has no attribute eps"
    return "it has no weight and no bias"


def _without_hooks(module: nn.Module) -> nn.Module:
    copied = deepcopy(module)
    for part in copied.modules():
        part._forward_hooks.clear()
        part._forward_pre_hooks.clear()
    return copied
