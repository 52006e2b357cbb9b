"""Right layers that are built and called in unusual ways."""

from functools import partial

import numpy as np
import torch
from torch import nn


class PassesOnEverything(nn.BatchNorm2d):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)

    def forward(self, *args, **kwargs):
        return super().forward(*args, **kwargs)


class PassesOnKeywords(nn.LayerNorm):
    def __init__(self, dim, **kwargs):
        super().__init__(dim, **kwargs)


class ClassMethodLayerNorm:
    @classmethod
    def forward(cls, x, gain, offset):
        mean, var = x.mean(-1, keepdim=True), x.var(-1, correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt() * gain + offset


def layer_norm_of_many(x, gain, offset, tiny, upcast):
    wide = x.astype(np.float64) if upcast else x
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    return ((wide - mean) / np.sqrt(var + tiny) * gain + offset).astype(x.dtype)


partial_layer_norm = partial(layer_norm_of_many, tiny=1e-5, upcast=True)


def make_layer_norm(dim):
    """A factory of modules."""
    return nn.LayerNorm(dim)


def group_norm_of(channels, groups=2):
    """A factory of functions, with weight and bias in their cells."""
    weight, bias = torch.ones(channels, requires_grad=True), torch.zeros(channels, requires_grad=True)
    return lambda x: nn.functional.group_norm(x, groups, weight, bias)


def layer_norm_of_lists(rows):
    """Plain Python: lists of lists of numbers."""
    out = []
    for row in rows:
        mean = sum(row) / len(row)
        var = sum((value - mean) ** 2 for value in row) / len(row)
        out.append([(value - mean) / (var + 1e-5) ** 0.5 for value in row])
    return out


def layer_norm_of_one_sample(v):
    """A vector, without an axis for the batch."""
    if v.ndim != 1:
        raise ValueError("expected one sample")
    return ((v - v.mean()) / np.sqrt(v.var() + 1e-5)).astype(v.dtype)


class ColumnBatchNorm:
    """Samples are columns: (C, N), with parameters of shape (C, 1)."""

    def __init__(self, units):
        self.gamma, self.beta = np.ones((units, 1)), np.zeros((units, 1))
        self.mu, self.sigma2 = np.zeros((units, 1)), np.ones((units, 1))

    def forward(self, Z, training=True):  # noqa: N803
        mu, sigma2 = self.mu, self.sigma2
        if training:
            if Z.shape[1] < 2:
                raise ValueError("more than one sample is needed")
            mu, sigma2 = Z.mean(axis=1, keepdims=True), Z.var(axis=1, keepdims=True)
            self.mu = 0.9 * self.mu + 0.1 * mu
            self.sigma2 = 0.9 * self.sigma2 + 0.1 * Z.var(axis=1, keepdims=True, ddof=1)
        return (self.gamma * (Z - mu) / np.sqrt(sigma2 + 1e-5) + self.beta).astype(Z.dtype)


class SeveralMethods(nn.LayerNorm):
    """Which of its methods is meant has to be said."""

    forward = None

    def centre_only(self, x):
        return x - x.mean(-1, keepdim=True)

    def all_of_it(self, x):
        return nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class ConditionalBatchNorm2d(nn.BatchNorm2d):
    """Weight and bias are looked up by each sample's label."""

    def __init__(self, num_features, num_classes):
        super().__init__(num_features, affine=False)
        self.gains, self.shifts = nn.Embedding(num_classes, num_features), nn.Embedding(num_classes, num_features)
        nn.init.ones_(self.gains.weight)
        nn.init.zeros_(self.shifts.weight)

    def forward(self, x, labels):
        return super().forward(x) * self.gains(labels)[:, :, None, None] + self.shifts(labels)[:, :, None, None]


class AdaptiveInstanceNorm2d(nn.InstanceNorm2d):
    """Weight and bias are computed from a style."""

    def __init__(self, num_features, style_dim=12):
        super().__init__(num_features)
        self.project = nn.Linear(style_dim, 2 * num_features)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, x, style):
        gain, shift = self.project(style)[:, :, None, None].chunk(2, dim=1)
        return super().forward(x) * (1 + gain) + shift


class MaskedBatchNorm2d(nn.BatchNorm2d):
    """The mask of (N, H, W) tells which pixels count."""

    def forward(self, x, valid):
        if valid.dtype is not torch.bool:
            raise TypeError("expected a mask of booleans")
        if not valid.all():
            raise NotImplementedError
        if valid.shape != (x.shape[0], *x.shape[2:]):
            raise ValueError("expected a mask of shape (N, H, W)")
        return super().forward(x)


class AdaptiveLayerNorm(nn.LayerNorm):
    """Weight and bias are looked up by each sample's label, and start at random."""

    def __init__(self, dim, num_classes=10):
        super().__init__(dim, elementwise_affine=False)
        self.table = nn.Embedding(num_classes, 2 * dim)

    def forward(self, x, labels):
        if x.numel() == 0:
            return x.clone()
        rows = self.table(labels).reshape(len(x), *[1] * (x.dim() - 2), -1).to(x.dtype)
        gain, shift = rows.chunk(2, dim=-1)
        return super().forward(x) * gain + shift


class StyleTransfer(nn.Module):
    """Adaptive instance normalization: mean and deviation are those of another image."""

    def forward(self, content, style):
        def over(x):
            axes = tuple(range(2, x.dim()))
            return x.mean(axes, keepdim=True), (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()

        mean, std = over(content)
        shift, gain = over(style.to(content.dtype))
        return (content - mean) / std * gain + shift


class UnbiasedStyleTransfer(nn.Module):
    """The deviations of both images are the unbiased ones, which the style's scale hides."""

    def forward(self, content, style):
        assert content.dim() == 4
        assert content.shape[:2] == style.shape[:2]

        def over(x):
            flat = x.flatten(2)
            return flat.mean(2)[:, :, None, None], (flat.var(2) + 1e-5).sqrt()[:, :, None, None]

        mean, std = over(content)
        shift, gain = over(style.to(content.dtype))
        return (content - mean) / std * gain + shift


class MaskedMeansBatchNorm1d(nn.BatchNorm1d):
    """For (N, C, L): sums over what the mask of (N, 1, L) lets through."""

    def forward(self, x, mask):
        if not self.training:
            return super().forward(x)
        count = mask.sum()
        mean = (x * mask).sum((0, 2)) / count
        var = ((x - mean[:, None]).square() * mask).sum((0, 2)) / count
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * count / (count - 1), self.momentum)
        y = (x - mean[:, None]) / (var[:, None] + self.eps).sqrt()
        return y * self.weight[:, None] + self.bias[:, None]


class NeedsTwoInputs(nn.LayerNorm):
    """It adds the branch beside it, as residual blocks do."""

    def forward(self, x, branch):
        return super().forward(x + branch["out"])


def make_without_branch(layer):
    """The adapter for NeedsTwoInputs."""
    built = layer(6)
    return lambda x: built(x, {"out": torch.zeros_like(x)})


class StagedBatchNorm2d(nn.BatchNorm2d):
    """Its mode is a number in an object beside the input."""

    def forward(self, x, run):
        self.training = run["stage"] == 7
        return super().forward(x)


class Staged:
    """What the adapter of StagedBatchNorm2d returns."""

    def __init__(self, layer):
        self.layer = layer
        self.train()

    def train(self):
        self.run = {"stage": 7}

    def eval(self):
        self.run = {"stage": 8}

    def __call__(self, x):
        return self.layer(x, self.run)


def make_staged(layer):
    """The adapter for StagedBatchNorm2d."""
    return Staged(layer(6))


class AlphaBatchNorm2d(nn.BatchNorm2d):
    """alpha weighs the new batch: found by what it does."""

    def __init__(self, num_features, alpha=0.1):
        super().__init__(num_features, momentum=alpha)


class AlphaOfTheOldBatchNorm2d(nn.BatchNorm2d):
    """alpha weighs the old value."""

    def __init__(self, num_features, alpha=0.9):
        super().__init__(num_features, momentum=1 - alpha)


class AnswersInWords:
    """With NumPy arrays it comes to its end, and returns no array."""

    def forward(self, x):
        if isinstance(x, torch.Tensor):
            raise TypeError(f"expected an array of numbers, not of {x.dtype}")
        if x.ndim != 2:
            raise ValueError(f"expected two axes, not {x.ndim}")
        return f"mean {x.mean()}"
