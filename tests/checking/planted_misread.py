"""Layers, models and functions that were taken for something else."""

import numpy as np
import planted_modules as modules
import torch
from torch import nn


def layer_norm_swapped(x, gamma, beta, eps=1e-5):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return ((x - mean) / np.sqrt(var + eps) * beta + gamma).astype(x.dtype)


def group_norm_swapped(x, num_groups, weight, bias, eps=1e-5):
    y = nn.functional.group_norm(x, num_groups, eps=eps)
    shape = (1, -1, *(1,) * (x.dim() - 2))
    return y * bias.view(shape) + weight.view(shape)


class GammaBetaSwapped(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(size)), nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return nn.functional.layer_norm(x, x.shape[-1:]) * self.beta + self.gamma


class LayerNormSwapped(GammaBetaSwapped):
    """The same under a name that tells the family."""


class GammaBetaRenamed(GammaBetaSwapped):
    """What scales starts at one and what shifts at zero, each under the name of the other."""

    def __init__(self, size):
        super().__init__(size)
        self.gamma, self.beta = self.beta, self.gamma


class RMSNormThatShifts(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return nn.functional.rms_norm(x, x.shape[-1:]) + self.weight


class BatchNormSwapped(modules.BatchNorm):
    def affine(self, x_hat):
        return x_hat * self.column(self.bias, x_hat) + self.column(self.weight, x_hat)


class AveragesPlainly(nn.BatchNorm2d):
    def __init__(self, num_features):
        super().__init__(num_features, momentum=None)


class AveragesPlainlyWhateverIsAsked(nn.BatchNorm2d):
    def __init__(self, num_features, momentum=0.1):
        super().__init__(num_features, momentum=None)


class Weighs(nn.BatchNorm2d):
    """Batch normalization whose n-th batch weighs ``weight_of(n)``."""

    def __init__(self, num_features):
        super().__init__(num_features)

    def forward(self, x):
        if self.training:
            self.momentum = self.weight_of(int(self.num_batches_tracked) + 1)
        return super().forward(x)


class AveragesWithTheStart(Weighs):
    def weight_of(self, n):
        return 1 / (n + 1)


class AveragesPlainlyAtFirst(Weighs):
    def weight_of(self, n):
        return max(1 / n, 0.1)


class BatchNormOfPositions(nn.Module):
    """Keeps statistics for each channel and position: an average over the samples alone."""

    def __init__(self, num_features):
        super().__init__()
        shape = (1, num_features, 1, 1)
        self.weight, self.bias = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            var, mean = torch.var_mean(x, 0, correction=0, keepdim=True)
            self.running_mean = (0.9 * self.running_mean + 0.1 * mean).detach()
            self.running_var = (0.9 * self.running_var + 0.1 * var).detach()
        return (x - mean) / (var + 1e-5).sqrt() * self.weight + self.bias


class OwnLayerNorm(modules.LayerNorm):
    pass


class Network(nn.Module):
    def __init__(self, channels=8):
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3)
        self.first, self.second = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.head, self.last = nn.Linear(channels, 10), OwnLayerNorm(10)

    def forward(self, x):
        x = self.second(self.first(self.conv(x)).relu())
        return self.last(self.head(x.mean((2, 3))))


def make_network():
    return Network()


class Block(nn.Module):
    """Of the shape of its input, as a norm is."""

    def __init__(self, channels):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels)

    def forward(self, x):
        return self.norm(self.conv(x)).relu()


class AddsToItsInput(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(dim), nn.Linear(dim, dim)

    def forward(self, x):
        return x + self.linear(self.norm(x))


class OfImagesOf32(nn.Module):
    """Runs on no input that is tried."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.linear = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 30 * 30, 10)

    def forward(self, x):
        return self.linear(self.norm(self.conv(x)).flatten(1))


class StyleNorm(nn.Module):
    """A norm, and a linear layer that a style alone passes through."""

    def __init__(self, num_features, style_dim=12):
        super().__init__()
        self.norm, self.project = nn.InstanceNorm2d(num_features), nn.Linear(style_dim, 2 * num_features)

    def forward(self, x, style):
        scale, shift = self.project(style)[:, :, None, None].chunk(2, dim=1)
        return self.norm(x) * (1 + scale) + shift
