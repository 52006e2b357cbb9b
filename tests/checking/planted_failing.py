"""Layers that raise in some calls, and layers with several faults that have nothing to do with one another."""

import numpy as np
import planted_modules as modules
import torch
from torch import nn


class FlattensAndFailsInEvaluation(nn.Module):
    """Wrong in shape and in its initial values, keeps plain attributes, and evaluation never ran."""

    def __init__(self, num_features):
        super().__init__()
        self.weight = nn.Parameter(torch.full((num_features,), 0.5))
        self.bias = nn.Parameter(torch.full((num_features,), 0.5))
        self.running_mean, self.running_var = torch.zeros(num_features), torch.zeros(num_features)

    def forward(self, x):
        x = x.flatten(2)
        if not self.training:
            return (x - self.running_mean[None, None, :, None]) / self.running_var
        var, mean = torch.var_mean(x, dim=(0, 2), correction=0)
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
        self.running_var = 0.9 * self.running_var + 0.1 * var.detach()
        return (x - mean[:, None]) / (var[:, None] + 1e-5).sqrt() * self.weight[:, None] + self.bias[:, None]


class UnbiasedOutsideFailsInEvaluation(modules.FailsInEvaluation):
    """The formula is wrong in two places, the backward pass in one."""

    def statistics(self, x):
        return x.mean(self.axes(x)), x.var(self.axes(x), correction=0).detach()

    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / (self.column(self.unbiased(var, x), x).sqrt() + self.eps)


class OverSamplesFailsInEvaluation(modules.FailsInEvaluation):
    """Averages over everything but keeps the right running mean, with a momentum of its own for the variance."""

    def normalize(self, x, mean, var):
        return (x - x.mean()) / (x.var(correction=0) + self.eps).sqrt()

    @torch.no_grad()
    def update(self, mean, var, x):
        self.num_batches_tracked += 1
        self.running_mean.copy_((1 - self.momentum) * self.running_mean + self.momentum * mean)
        self.running_var.copy_(self.momentum * self.running_var + (1 - self.momentum) * self.unbiased(var, x))


class DoubleFailsInEvaluation(modules.FailsInEvaluation):
    def forward(self, x):
        return super().forward(x).double()


class RegistersNothingFailsInEvaluation(modules.ParametersAsTensors):
    def select(self, x):
        if self.training:
            return super().select(x)
        raise NotImplementedError("evaluation")


class TrainsOnce:
    """The second training call fails, since the running statistics change their shape; evaluation is right."""

    def __init__(self, num_features, eps=1e-5):
        self.gamma, self.beta = np.full(num_features, 2.0), np.zeros(num_features)
        self.running_mean, self.running_var = np.zeros(num_features), np.zeros(num_features)
        self.training, self.eps, self.calls = True, eps, 0

    def forward(self, x):
        if not self.training:
            return self.gamma * (x - self.running_mean) / np.sqrt(self.running_var + self.eps) + self.beta
        self.calls += 1
        if self.calls > 1:
            raise ValueError("operands could not be broadcast together")
        mean, var = x.mean(0), x.var(0)
        self.running_mean, self.running_var = 0.1 * mean, 0.1 * var
        return self.gamma * (x - mean) / (np.sqrt(var) + self.eps) + self.beta


class SqueezesInEvaluation(modules.EpsOutside):
    def forward(self, x):
        y = super().forward(x)
        return y if self.training else y[:, None]


class OverwritesInEvaluation(modules.GradientHalved):
    def normalize(self, x, mean, var):
        y = super().normalize(x, mean, var)
        if not self.training:
            x.zero_()
        return y


class UnusedWeightDetached(modules.WeightUnused):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean.detach(), var.detach()


class PassesThroughInEvaluation(modules.BatchNorm):
    """One fault: that evaluation ignores weight and bias too follows from it."""

    def forward(self, x):
        return super().forward(x) if self.training else x.clone()


class LayerNormOfTrainingOnly(modules.LayerNorm):
    def forward(self, x):
        if self.training:
            return super().forward(x)
        return (x - x.mean(-1, keepdim=True)) * self.weight + self.bias


class KeepsNothingBeforeTheFirstBatch(modules.BatchNorm):
    """Right in every call but an evaluation before any training."""

    def select(self, x):
        if not self.training and not self.num_batches_tracked:
            raise RuntimeError("train it first")
        return super().select(x)


class LayerNormOfSmallValues(modules.LayerNorm):
    """Right, as far as it can be told: it refuses what tells its eps."""

    def forward(self, x):
        if x.numel() and float(x.abs().max()) > 50:
            raise ValueError("values are too large")
        return super().forward(x)


class HidesItsStatistics(modules.NoRunningStatistics):
    """Evaluates with statistics that nobody finds."""

    def select(self, x):
        if self.training:
            mean, var = super().select(x)
            self.kept = mean.detach().numpy().tobytes(), var.detach().numpy().tobytes()
            return mean, var
        return tuple(torch.frombuffer(bytearray(values), dtype=x.dtype) for values in self.kept)


class SmoothsByWhatItHides(modules.NoRunningStatistics):
    """Normalizes by an average over batches that nobody finds; the first batch of all is normalized rightly."""

    def statistics(self, x):
        mean, var = super().statistics(x)
        if not self.training:
            return mean, var
        if hasattr(self, "kept"):
            old_mean, old_var = (torch.frombuffer(bytearray(values), dtype=x.dtype) for values in self.kept)
            mean, var = (mean + old_mean) / 2, (var + old_var) / 2
        self.kept = mean.detach().numpy().tobytes(), var.detach().numpy().tobytes()
        return mean, var


class DrawsItsWeightInTheFirstCall(modules.BatchNorm):
    """Wrong in its initial values alone: a weight that is drawn once is no randomness of the layer."""

    def __init__(self, num_features):
        super().__init__(num_features)
        self.weight = None

    def affine(self, x_hat):
        if self.weight is None:
            self.weight = nn.Parameter(torch.rand(x_hat.shape[1]) + 1)
        return super().affine(x_hat)


class DividesByTheRunningDeviation(modules.RunningStandardDeviation):
    """One fault, and consistent: what is called the running variance is the deviation, and evaluation takes it so."""

    def normalize(self, x, mean, var):
        return super().normalize(x, mean, var if self.training else var**2)
