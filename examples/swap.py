"""Swap the norms of a model for normkit's: the same results, another time.

Expect outputs and gradients that agree to float32's rounding, and a training step that takes less time than before. How
much less depends on the processor and on how much of the model is normalization.
"""

import copy
import time

import torch
from torch import nn

import normkit


def block(channels_in: int, channels: int) -> nn.Module:
    convolution = nn.Conv2d(channels_in, channels, 3, padding=1, groups=channels_in, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU6())


def step(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    y: torch.Tensor = model(x)
    y.square().mean().backward()
    return y.detach()


def milliseconds(models: list[nn.Module], x: torch.Tensor) -> list[float]:
    """Time a step of each model, in turns, so that a busy machine slows all of them; the best of ten."""
    best = [float("inf")] * len(models)
    for _ in range(10):
        for index, model in enumerate(models):
            start = time.perf_counter()
            step(model, x)
            best[index] = min(best[index], 1000 * (time.perf_counter() - start))
    return best


torch.manual_seed(0)
head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10))
before = nn.Sequential(block(16, 32), block(32, 64), block(64, 64), *head)
after = copy.deepcopy(before)
print(normkit.accelerate(after))  # in place: what was swapped, and what was not

x = torch.randn(8, 16, 56, 56)
y_before, y_after = step(before, x), step(after, x)
print(f"largest difference of an output:   {(y_before - y_after).abs().max():.0e} of {y_before.abs().max():.1f}")
pairs = list(zip(before.parameters(), after.parameters(), strict=True))
largest = max(float(p.grad.abs().max()) for p, _ in pairs if p.grad is not None)
difference = max(float((p.grad - q.grad).abs().max()) for p, q in pairs if p.grad is not None and q.grad is not None)
print(f"largest difference of a gradient:  {difference:.0e} of {largest:.1f}")
fits = before.state_dict().keys() == after.state_dict().keys()
print(f"checkpoints have the same entries: {fits}")

old, new = milliseconds([before, after], x)
print(f"a training step: torch.nn {old:.0f} ms, normkit {new:.0f} ms, {old / new:.1f} times as fast")
