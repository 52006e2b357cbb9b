"""Forms that are found in the wild and are easily misread: right ones, and ones with a fault."""

import numpy as np
import planted_modules as modules
import torch
from torch import nn


class SizeUnderAnotherName(modules.BatchNorm):
    """Correct; nothing tells what ``hidden`` is."""

    def __init__(self, hidden):
        super().__init__(hidden)


class RunningStatisticsCalledMeanAndVar(modules.BatchNorm):
    """Correct; under the names that other classes give to the last batch's statistics."""

    def __init__(self, num_features):
        super().__init__(num_features)
        del self.running_mean, self.running_var
        self.register_buffer("mean", torch.zeros(num_features))
        self.register_buffer("var", torch.ones(num_features))

    running_mean = property(lambda self: self.mean)
    running_var = property(lambda self: self.var)


class ConstantBesideTheWeight(nn.Module):
    """Correct RMS normalization; ``scale`` is a number, the weight is called g."""

    def __init__(self, dim):
        super().__init__()
        self.scale = dim**-0.5
        self.g = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        norm = torch.sqrt((wide.norm(dim=-1, keepdim=True) * self.scale) ** 2 + torch.finfo(wide.dtype).eps)
        return (wide / norm * self.g.to(wide.dtype)).to(x.dtype)


class LayerNormAllButBatchInItsName(modules.LayerNorm):
    """Correct: the family is what stands beside Norm."""


class ChannelsFirst(nn.Module):
    """Layer normalization of (N, C, H, W); at rank 2 its weight broadcasts."""

    def __init__(self, dim):
        super().__init__()
        self.g = nn.Parameter(torch.ones(1, dim, 1, 1))
        self.b = nn.Parameter(torch.zeros(1, dim, 1, 1))

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        mean, var = wide.mean(1, keepdim=True), wide.var(1, correction=0, keepdim=True)
        return ((wide - mean) / (var + 1e-5).sqrt() * self.g + self.b).to(x.dtype)


class RectifiesItsOutput(modules.BatchNorm):
    def forward(self, x):
        return torch.relu(super().forward(x))


class LosesTheOrderOfAxes(modules.BatchNorm):
    """The channels are brought last, and a reshape does not bring them back."""

    def normalize(self, x, mean, var):
        return super().normalize(x, mean, var).movedim(1, -1).reshape(x.shape)


class SumOfSquares(modules.RMSNorm):
    """Forgets that the mean of squares is meant."""

    def normalize(self, x):
        return x / (x.norm(dim=-1, keepdim=True) + 1e-8)


class WeightBeforeNormalizing(modules.LayerNorm):
    """The gradient is right all the same."""

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        wide = wide * self.weight + self.bias
        mean, var = wide.mean(-1, keepdim=True), wide.var(-1, correction=0, keepdim=True)
        return ((wide - mean) / torch.sqrt(var + self.eps)).to(x.dtype)


class TinyEpsOutside(modules.RMSNorm):
    """eps = 1e-8 is lost in a variance of 1e-12, and added to its root all the same."""

    def normalize(self, x):
        return x / (x.pow(2).mean(-1, keepdim=True).sqrt() + 1e-8)


class RefusesFloat64(modules.GroupNorm):
    def forward(self, x):
        if x.dtype == torch.float64:
            raise RuntimeError("expected float32")
        return super().forward(x)


class DifferentMomentumForVariance(modules.BatchNorm):
    """Normalizes by the unbiased variance, which must not hide that the update is wrong."""

    def normalize(self, x, mean, var):
        return super().normalize(x, mean, self.unbiased(var, x) if self.training else var)

    @torch.no_grad()
    def update(self, mean, var, x):
        m = self.momentum
        self.running_mean.copy_((1 - m) * self.running_mean + m * mean)
        self.running_var.copy_(m * self.running_var + (1 - m) * self.unbiased(var, x))


class BatchNormalizationKeras:
    """Correct in Keras' manner: ``build`` makes the weights when the shape is known."""

    def __init__(self, axis=-1, momentum=0.99, epsilon=1e-3):
        self.axis, self.momentum, self.epsilon, self.built = axis, momentum, epsilon, False

    def build(self, shape):
        size = shape[self.axis]
        self.gamma, self.beta = np.ones(size), np.zeros(size)
        self.moving_mean, self.moving_variance = np.zeros(size), np.ones(size)
        self.built = True

    def __call__(self, inputs, training=None):
        if not self.built:
            self.build(inputs.shape)
        mean, var, m = self.moving_mean, self.moving_variance, self.momentum
        if training and inputs.size:
            axes = tuple(range(inputs.ndim - 1))
            mean, var = inputs.mean(axes), inputs.var(axes)
            self.moving_mean = m * self.moving_mean + (1 - m) * mean
            self.moving_variance = m * self.moving_variance + (1 - m) * var
        return ((inputs - mean) / np.sqrt(var + self.epsilon) * self.gamma + self.beta).astype(inputs.dtype)


def layernorm_forward(x, gamma, beta, ln_param):
    """The form of a well-known course, for (N, D): axis 1 is the last one there only."""
    mean, var = x.mean(axis=1, keepdims=True), x.var(axis=1, keepdims=True)
    std = np.sqrt(var + ln_param.get("eps", 1e-5))
    x_hat = (x - mean) / std
    return gamma * x_hat + beta, (x_hat, gamma, std)


def layernorm_backward(dout, cache):
    x_hat, gamma, std = cache
    g = dout * gamma
    dx = (g - g.mean(1, keepdims=True) - x_hat * (g * x_hat).mean(1, keepdims=True)) / std
    return dx, (dout * x_hat).sum(0), dout.sum(0)


def spatial_batch_norm(x, gamma, beta, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    """Forgets the transpose before it reshapes to (-1, C)."""
    rows = x.reshape(-1, x.shape[1])
    mean, var = (rows.mean(0), rows.var(0)) if training else (running_mean, running_var)
    if training:
        running_mean += momentum * (mean - running_mean)
        running_var += momentum * (var - running_var)
    return ((rows - mean) / np.sqrt(var + eps) * gamma + beta).reshape(x.shape).astype(x.dtype)


class LayerNormOfT5(nn.Module):
    """RMS normalization on purpose."""

    def __init__(self, hidden_size, eps=2**-23):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(hidden_size)), eps

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        y = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * self.weight.to(wide.dtype)).to(x.dtype)
