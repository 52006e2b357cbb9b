"""Layers as people write them, right ones and wrong ones, for `normkit train --impl`."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class RightBatchNorm(nn.Module):
    """Right in other words than torch's, with a textbook's arguments."""

    momentum = 0.1

    def __init__(self, num_features: int, num_dims: int) -> None:
        super().__init__()
        shape = (1, num_features) if num_dims == 2 else (1, num_features, 1, 1)
        self.gamma = nn.Parameter(torch.ones(shape))
        self.beta = nn.Parameter(torch.zeros(shape))
        self.keep("moving_mean", torch.zeros(shape))
        self.keep("moving_var", torch.ones(shape))
        self.moving_mean: Tensor
        self.moving_var: Tensor

    def keep(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return self.normalized(x, self.moving_mean, self.moving_var)
        axes = (0, 2, 3)[: x.dim() - 1]
        mean = x.mean(axes, keepdim=True)
        var = ((x - mean) ** 2).mean(axes, keepdim=True)
        self.update(mean.detach(), var.detach(), x.numel() // x.shape[1])
        return self.normalized(x, mean, var)

    def update(self, mean: Tensor, var: Tensor, n: int) -> None:
        self.moving_mean = self.moving_mean.lerp(mean, self.momentum)
        self.moving_var = self.moving_var.lerp(var * n / (n - 1), self.momentum)

    def normalized(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return (x - mean) / torch.sqrt(var + 1e-5) * self.gamma + self.beta


class BareBatchNorm(nn.Module):
    """Without weight and bias."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.running_mean: Tensor
        self.running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.running_mean, self.running_var, training=self.training)


class InvertedMomentumBatchNorm(RightBatchNorm):
    """Its momentum weighs the old value, as elsewhere."""

    momentum = 0.9


class UnbiasedBatchNorm(RightBatchNorm):
    """Normalizes with the variance that is to be stored."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        axes = (0, 2, 3)[: x.dim() - 1]
        mean, var = x.mean(axes, keepdim=True), x.var(axes, keepdim=True)
        n = x.numel() // x.shape[1]
        self.update(mean.detach(), var.detach() * (n - 1) / n, n)
        return self.normalized(x, mean, var)


class FrozenBatchNorm(RightBatchNorm):
    """Has running statistics and never updates them."""

    def update(self, mean: Tensor, var: Tensor, n: int) -> None: ...


class AlwaysTrainingBatchNorm(RightBatchNorm):
    """Normalizes with the batch's own statistics in evaluation too."""

    def forward(self, x: Tensor) -> Tensor:
        axes = (0, 2, 3)[: x.dim() - 1]
        mean = x.mean(axes, keepdim=True)
        var = ((x - mean) ** 2).mean(axes, keepdim=True)
        if self.training:
            self.update(mean.detach(), var.detach(), x.numel() // x.shape[1])
        return self.normalized(x, mean, var)


class UnsavedBatchNorm(RightBatchNorm):
    """Right, with its statistics as plain attributes."""

    def keep(self, name: str, value: Tensor) -> None:
        setattr(self, name, value)


class DetachedBatchNorm(RightBatchNorm):
    """Takes mean and variance for constants in the backward pass."""

    def normalized(self, x: Tensor, mean: Tensor, var: Tensor) -> Tensor:
        return super().normalized(x, mean.detach(), var.detach())


class ModeArgumentBatchNorm(RightBatchNorm):
    """Right, with its mode as an argument, and its statistics beside the output."""

    def forward(self, x: Tensor, is_training: bool = True) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        was = self.training
        self.training = is_training
        y = super().forward(x)
        self.training = was
        return y, self.moving_mean


class FlagBatchNorm(RightBatchNorm):
    """Right, with a flag of its own for the mode."""

    def __init__(self, num_features: int, num_dims: int) -> None:
        super().__init__(num_features, num_dims)
        self.inference = False

    def forward(self, x: Tensor) -> Tensor:
        was = self.training
        self.training = not self.inference
        y = super().forward(x)
        self.training = was
        return y


class AttachedBatchNorm(RightBatchNorm):
    """Right, but its statistics keep the graph of every step."""

    def keep(self, name: str, value: Tensor) -> None:
        setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            mean = x.mean((0, 2, 3)[: x.dim() - 1], keepdim=True)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean
        return super().forward(x)

    def update(self, mean: Tensor, var: Tensor, n: int) -> None:
        self.moving_var = self.moving_var.lerp(var * n / (n - 1), self.momentum)


class FailingBatchNorm(RightBatchNorm):
    """Fails in a later step at one place."""

    def __init__(self, num_features: int, num_dims: int) -> None:
        super().__init__(num_features, num_dims)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 6 and x.shape[1] == 120:
            raise ValueError("the sixth batch is one too many")
        return super().forward(x)


class FailingBackwardBatchNorm(RightBatchNorm):
    """Fails in the backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if y.requires_grad and len(x) > 8:  # not in the few images of a first look
            y.register_hook(_refuse)
        return y


def _refuse(gradient: Tensor) -> None:
    raise ArithmeticError("no way back")


class BatchNorm2d(RightBatchNorm):
    """Right, for images alone."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, 4)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 4:
            raise ValueError("expected images")
        return super().forward(x)


class BatchNorm1d(RightBatchNorm):
    """Right, for features alone."""

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features, 2)

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 2:
            raise ValueError("expected features")
        return super().forward(x)


class LayerNorm(nn.Module):
    """Right, over the last axis."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.weight + self.bias


class GroupNormNHWC(nn.Module):
    """Right, with the channels last, for images alone."""

    def __init__(self, num_groups: int, num_channels: int) -> None:
        super().__init__()
        self.num_groups = num_groups
        self.scale = nn.Parameter(torch.ones(num_channels))
        self.shift = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        grouped = x.reshape(n, h * w, self.num_groups, c // self.num_groups)
        mean = grouped.mean((1, 3), keepdim=True)
        var = ((grouped - mean) ** 2).mean((1, 3), keepdim=True)
        return ((grouped - mean) / torch.sqrt(var + 1e-5)).reshape(x.shape) * self.scale + self.shift


class InstanceNorm(nn.Module):
    """Right, for images alone."""

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        _, _, _, _ = x.shape
        mean = x.mean((2, 3), keepdim=True)
        var = ((x - mean) ** 2).mean((2, 3), keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.gain + self.bias


class PrintingBatchNorm(RightBatchNorm):
    """Prints while it trains."""

    def forward(self, x: Tensor) -> Tensor:
        print("shape", tuple(x.shape))
        return super().forward(x)


class RMSNorm(nn.Module):
    """Has no place in the LeNet."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * self.weight


class LayerNorm2d(nn.Module):
    """Normalizes over the channels at each position."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        var = ((x - mean) ** 2).mean(1, keepdim=True)
        return (x - mean) / torch.sqrt(var + 1e-5) * self.weight + self.bias


class NumPyBatchNorm:
    """Works on NumPy arrays."""

    def __call__(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray((x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5))


def batch_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    """A function, whose caller keeps weight and bias."""
    return (x - x.mean(0)) / torch.sqrt(x.var(0, correction=0) + 1e-5) * gamma + beta


INSTANCE = nn.BatchNorm2d(6)
