"""Normalizations that are not of the family that their names promise, or of none."""

import torch
from torch import nn


class Normalize(nn.Module):
    """RMS normalization, by nothing but what it computes."""

    def __init__(self, count):
        super().__init__()
        self.factor = nn.Parameter(torch.ones(count))

    def forward(self, x):
        return nn.functional.rms_norm(x, self.factor.shape, self.factor)


class Standard(nn.Module):
    """Batch normalization, by nothing but what it computes."""

    def __init__(self, count):
        super().__init__()
        self.inner = nn.BatchNorm2d(count)

    def forward(self, x):
        return self.inner(x)


class LayerNorm(nn.Module):
    """RMS normalization under the name of layer normalization, as T5 has it."""

    def __init__(self, hidden_size, eps=1.1920929e-07):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(hidden_size)), eps

    def forward(self, x):
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class LayerNormWithoutMean(LayerNorm):
    """The same with a bias: it was meant to be a layer normalization."""

    def __init__(self, hidden_size):
        super().__init__(hidden_size, 1e-5)
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, x):
        return super().forward(x) + self.bias


class LayerNorm2d(nn.GroupNorm):
    """Layer normalization of images over C, H, W, with one weight a channel."""

    def __init__(self, num_channels):
        super().__init__(1, num_channels)


class GlobalLayerNorm(nn.Module):
    """Layer normalization of sequences (N, C, L) over C and L, with one weight a channel, as for speech."""

    def __init__(self, dim):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, x):
        var, mean = torch.var_mean(x, (1, 2), correction=0, keepdim=True)
        return self.weight[:, None] * ((x - mean) / (var + 1e-5).sqrt()) + self.bias[:, None]


class GRN(nn.Module):
    """Global response normalization, ConvNeXt V2."""

    def __init__(self, dim):
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.zeros(1, 1, 1, dim)), nn.Parameter(torch.zeros(1, 1, 1, dim))

    def forward(self, x):
        norm = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
        return self.gamma * (x * (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6))) + self.beta + x


class ILN(nn.Module):
    """A blend of instance and layer normalization with a learned weight, U-GAT-IT."""

    def __init__(self, num_features):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, num_features, 1, 1), 0.3))
        self.gamma = nn.Parameter(torch.ones(1, num_features, 1, 1))
        self.beta = nn.Parameter(torch.zeros(1, num_features, 1, 1))

    def forward(self, x):
        def over(axes):
            return (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()

        return (self.rho * over((2, 3)) + (1 - self.rho) * over((1, 2, 3))) * self.gamma + self.beta


class SwitchNorm2d(nn.Module):
    """Means and variances of three kinds are mixed before they are used."""

    def __init__(self, num_features):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, num_features, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, num_features, 1, 1))
        self.choose_mean, self.choose_var = nn.Parameter(torch.zeros(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x):
        kinds = [(2, 3), (1, 2, 3), (0, 2, 3)]
        means = [x.mean(axes, keepdim=True) for axes in kinds]
        variances = [x.var(axes, correction=0, keepdim=True) for axes in kinds]
        mean = sum(w * m for w, m in zip(self.choose_mean.softmax(0), means, strict=True))
        var = sum(w * v for w, v in zip(self.choose_var.softmax(0), variances, strict=True))
        return (x - mean) / (var + 1e-5).sqrt() * self.weight + self.bias


class PixelNorm(nn.Module):
    """Over samples and channels, for each pixel of an image by itself: of no family."""

    def forward(self, x):
        assert x.dim() == 4
        return (x - x.mean((0, 1), keepdim=True)) / (x.var((0, 1), correction=0, keepdim=True) + 1e-5).sqrt()


class WSConv2d(nn.Conv2d):
    """A convolution that standardizes its weights."""

    def __init__(self, in_channels):
        super().__init__(in_channels, in_channels, 3, padding=1)

    def forward(self, x):
        axes = (1, 2, 3)
        weight = self.weight - self.weight.mean(axes, keepdim=True)
        weight = weight / (weight.std(axes, keepdim=True) + 1e-10)
        return self._conv_forward(x, weight, self.bias)
