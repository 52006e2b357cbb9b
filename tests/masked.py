"""The oracle of masked norms: torch.nn on what is valid, concatenated, in float64."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import normkit

SHAPES = ((5, 6, 9), (4, 6, 40), (4, 6, 3, 5), (3, 6, 2, 3, 4), (17, 6))


@dataclass(frozen=True)
class Kind:
    """A norm: our layer, and torch's for one channels-first input without padding."""

    ours: Callable[[int], nn.Module]
    torch: Callable[[], nn.Module]
    per_sample: bool


def _batch(axes: int) -> nn.Module:
    classes: dict[int, type[nn.Module]] = {2: normkit.BatchNorm1d, 3: normkit.BatchNorm1d}
    return {**classes, 4: normkit.BatchNorm2d, 5: normkit.BatchNorm3d}[axes](6, eps=3e-3)


def _instance(axes: int) -> nn.Module:
    classes = {3: normkit.InstanceNorm1d, 4: normkit.InstanceNorm2d, 5: normkit.InstanceNorm3d}
    return classes[axes](6, eps=3e-3, affine=True)


KINDS = {
    "batch": Kind(_batch, lambda: nn.BatchNorm1d(6, eps=3e-3), per_sample=False),
    "instance": Kind(_instance, lambda: nn.InstanceNorm1d(6, eps=3e-3, affine=True), per_sample=True),
    "group": Kind(lambda _: normkit.GroupNorm(3, 6, eps=3e-3), lambda: nn.GroupNorm(3, 6, eps=3e-3), per_sample=True),
    "one group": Kind(lambda _: normkit.GroupNorm(1, 6, eps=3e-3), lambda: nn.GroupNorm(1, 6, eps=3e-3), True),
}


@dataclass
class Results:
    """What a training step gives."""

    y: Tensor
    dx: Tensor
    parameters: list[Tensor]
    buffers: list[Tensor]


def randomize(layer: nn.Module) -> nn.Module:
    """Weights and biases that are not ones and zeros; the same for the same seed."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) + 0.5)
    return layer


def step(layer: nn.Module, x: Tensor, dy: Tensor, **masks: Any) -> Results:
    """One training step of a layer."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    y = layer(x, **masks)
    y.backward(dy)
    assert x.grad is not None
    buffers = [buffer.clone() for buffer in layer.buffers()]
    return Results(y.detach(), x.grad, [p.grad for p in layer.parameters() if p.grad is not None], buffers)


def ragged_step(kind: Kind, x: Tensor, dy: Tensor, counts: Tensor) -> Results:
    """One training step of torch.nn on the valid elements alone.

    `counts`, of shape (N, *), says how often each is there.
    Copies have a part in the statistics. The result and its gradient are those of the first of them.
    """
    layer = randomize(kind.torch()).double()
    x, dy = x.double().detach().requires_grad_(), dy.double()
    y = torch.zeros_like(x)
    samples = [[n] for n in range(len(x))] if kind.per_sample else [list(range(len(x)))]
    for chosen in samples:
        picked = torch.zeros_like(counts, dtype=torch.bool)
        picked[chosen] = counts[chosen] > 0
        if not picked.any():
            continue
        repeats = counts[picked]
        first = torch.cumsum(repeats, 0) - repeats
        values = x.movedim(1, -1)[picked].repeat_interleave(repeats, 0)  # (M, C)
        out = layer(values.T[None] if kind.per_sample else values)
        out = (out[0].T if kind.per_sample else out)[first]
        y = y.movedim(1, -1).index_put((picked,), out).movedim(-1, 1)
    y.backward(torch.where((counts > 0)[:, None], dy, 0.0))
    assert x.grad is not None
    buffers = [buffer.clone() for buffer in layer.buffers()]
    return Results(y.detach(), x.grad, [p.grad for p in layer.parameters() if p.grad is not None], buffers)


def draw(shape: tuple[int, ...], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """x and dy, with NaN and infinity in their padding, and the mask (N, *)."""
    generator = torch.Generator().manual_seed(3)
    spatial = shape[2:]
    mask = torch.rand((shape[0], *spatial), generator=generator) < 0.6
    if spatial:  # a sample without padding, and one that is padding alone
        mask[0], mask[1] = True, False
    x, dy = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    x, dy = (2.5 * x + 4.0).to(dtype), dy.to(dtype)
    padding = ~mask[:, None].expand(shape)
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=dtype).repeat(x.numel())
    x[padding], dy[padding] = bad[: int(padding.sum())], bad[1 : int(padding.sum()) + 1]
    return x, dy, mask
