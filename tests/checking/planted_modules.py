"""A correct batch, layer, group and RMS normalization in plain torch, and one subclass for each fault.

Every correct class is written in small methods, so that a faulty one differs from it by exactly its fault.
"""

import threading

import numpy as np
import torch
from torch import nn


class BatchNorm(nn.Module):
    """Correct for inputs of rank 2 to 5."""

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def axes(self, x):
        return [axis for axis in range(x.dim()) if axis != 1]

    def column(self, values, x):
        return values.view(1, -1, *[1] * (x.dim() - 2))

    def statistics(self, x):
        return x.mean(self.axes(x)), x.var(self.axes(x), correction=0)

    def unbiased(self, var, x):
        n = x.numel() / x.shape[1]
        return var * n / (n - 1)

    def factor(self):
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    @torch.no_grad()
    def update(self, mean, var, x):
        self.num_batches_tracked += 1
        m = self.factor()
        self.running_mean.copy_((1 - m) * self.running_mean + m * mean)
        self.running_var.copy_((1 - m) * self.running_var + m * self.unbiased(var, x))

    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / torch.sqrt(self.column(var, x) + self.eps)

    def affine(self, x_hat):
        return x_hat * self.column(self.weight, x_hat) + self.column(self.bias, x_hat)

    def select(self, x):
        if not self.training:
            return self.running_mean, self.running_var
        if x.numel() == x.shape[1]:
            raise ValueError("expected more than 1 value per channel in training")
        mean, var = self.statistics(x)
        self.update(mean, var, x)
        return mean, var

    def forward(self, x):
        if x.numel() == 0:
            return x.clone()
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean, var = self.select(wide)
        return self.affine(self.normalize(wide, mean, var)).to(x.dtype)


class FlattensOutput(BatchNorm):
    def forward(self, x):
        return super().forward(x).reshape(len(x), -1) if x.dim() > 2 else super().forward(x)


class PromotesToDouble(BatchNorm):
    def forward(self, x):
        return super().forward(x).double()


class WholeTensor(BatchNorm):
    def statistics(self, x):
        count = x.shape[1]
        return x.mean().expand(count), x.var(correction=0).expand(count)


class PerSampleStatistics(BatchNorm):
    def normalize(self, x, mean, var):
        if not self.training or x.dim() == 2:
            return super().normalize(x, mean, var)
        axes = list(range(2, x.dim()))
        return (x - x.mean(axes, keepdim=True)) / torch.sqrt(x.var(axes, correction=0, keepdim=True) + self.eps)


class MeanAndVarianceDiffer(BatchNorm):
    def normalize(self, x, mean, var):
        if not self.training or x.dim() == 2:
            return super().normalize(x, mean, var)
        axes = list(range(2, x.dim()))
        return (x - x.mean(axes, keepdim=True)) / torch.sqrt(self.column(var, x) + self.eps)


class Unbiased(BatchNorm):
    def normalize(self, x, mean, var):
        return super().normalize(x, mean, self.unbiased(var, x) if self.training else var)


class EpsOutside(BatchNorm):
    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / (torch.sqrt(self.column(var, x)) + self.eps)


class EpsAsFloor(BatchNorm):
    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / torch.sqrt(self.column(var, x).clamp_min(self.eps))


class EpsOutsideInEvaluation(BatchNorm):
    def normalize(self, x, mean, var):
        if self.training:
            return super().normalize(x, mean, var)
        return (x - self.column(mean, x)) / (torch.sqrt(self.column(var, x)) + self.eps)


class EpsMissing(BatchNorm):
    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / torch.sqrt(self.column(var, x))


class EpsIgnored(BatchNorm):
    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / torch.sqrt(self.column(var, x) + 1e-5)


class EpsSquared(BatchNorm):
    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / torch.sqrt(self.column(var, x) + self.eps**2)


class AnotherEps(BatchNorm):
    def __init__(self, num_features, eps=1e-3, momentum=0.1):
        super().__init__(num_features, eps, momentum)


class DividesByVariance(BatchNorm):
    def normalize(self, x, mean, var):
        return (x - self.column(mean, x)) / (self.column(var, x) + self.eps)


class BiasedRunningVariance(BatchNorm):
    def unbiased(self, var, x):
        return var


class StartsFromFirstBatch(BatchNorm):
    @torch.no_grad()
    def update(self, mean, var, x):
        if not self.num_batches_tracked:
            self.running_mean.copy_(mean)
            self.running_var.copy_(self.unbiased(var, x))
        super().update(mean, var, x)


class NoRunningStatistics(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        del self.running_mean, self.running_var

    def select(self, x):
        if self.training and x.numel() == x.shape[1]:
            raise ValueError("expected more than 1 value per channel in training")
        return self.statistics(x)


class RunningStandardDeviation(BatchNorm):
    def unbiased(self, var, x):
        return var.sqrt()


class MomentumInverted(BatchNorm):
    @torch.no_grad()
    def update(self, mean, var, x):
        self.num_batches_tracked += 1
        m = 1 - self.factor() if self.momentum is not None else self.factor()
        self.running_mean.copy_((1 - m) * self.running_mean + m * mean)
        self.running_var.copy_((1 - m) * self.running_var + m * self.unbiased(var, x))


class KerasMomentum(MomentumInverted):
    def __init__(self, num_features, eps=1e-5, momentum=0.9):
        super().__init__(num_features, eps, momentum)


class FlaxLike(KerasMomentum):
    def unbiased(self, var, x):
        return var


class AnotherMomentum(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.01):
        super().__init__(num_features, eps, momentum)


class MomentumIgnored(BatchNorm):
    def factor(self):
        return 0.1 if self.momentum is not None else super().factor()


class CoefficientsDoNotAddUp(BatchNorm):
    @torch.no_grad()
    def update(self, mean, var, x):
        self.num_batches_tracked += 1
        m = self.factor()
        self.running_mean.copy_(self.running_mean + m * mean)
        self.running_var.copy_(self.running_var + m * self.unbiased(var, x))


class MomentumNoneIsNotCumulative(BatchNorm):
    def factor(self):
        return 0.1 if self.momentum is None else self.momentum


class StartsAtZeroVariance(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.running_var.zero_()


class NeverUpdates(BatchNorm):
    def update(self, mean, var, x):
        running_mean = (1 - self.factor()) * self.running_mean + self.factor() * mean  # noqa: F841 a local name
        self.num_batches_tracked += 1

    def factor(self):
        return 0.1


class UsesOldTwice(BatchNorm):
    @torch.no_grad()
    def update(self, mean, var, x):
        self.num_batches_tracked += 1
        m = self.factor()
        self.running_mean.copy_((1 - m) * self.running_mean + m * self.running_mean)
        self.running_var.copy_((1 - m) * self.running_var + m * self.running_var)


class UpdatesInEvaluation(BatchNorm):
    def select(self, x):
        if self.training:
            return super().select(x)
        used = self.running_mean.clone(), self.running_var.clone()
        self.update(*self.statistics(x), x)
        return used


class IgnoresRunningStatistics(BatchNorm):
    def select(self, x):
        return super().select(x) if self.training else self.statistics(x)


class TrainsOnRunningStatistics(BatchNorm):
    def select(self, x):
        super().select(x)
        return self.running_mean.clone(), self.running_var.clone()


class SwitchesOnGrad(BatchNorm):
    def select(self, x):
        if not torch.is_grad_enabled():
            return self.running_mean, self.running_var
        mean, var = self.statistics(x)
        if x.numel() == x.shape[1]:
            raise ValueError("expected more than 1 value per channel in training")
        self.update(mean, var, x)
        return mean, var


class PlainAttributes(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        mean, var = self.running_mean, self.running_var
        del self.running_mean, self.running_var
        self.running_mean, self.running_var = mean, var


class KeepsTheGraph(BatchNorm):
    def update(self, mean, var, x):
        self.num_batches_tracked += 1
        m = self.factor()
        self.running_mean = (1 - m) * self.running_mean + m * mean
        self.running_var = (1 - m) * self.running_var + m * self.unbiased(var, x)


class ParametersAsTensors(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        del self.weight, self.bias
        self.weight = torch.ones(num_features, requires_grad=True)
        self.bias = torch.zeros(num_features, requires_grad=True)


class StartsAtZeroWeight(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        nn.init.zeros_(self.weight)


class WeightPerBroadcast(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.weight = nn.Parameter(torch.ones(1, num_features, 1, 1))
        self.bias = nn.Parameter(torch.zeros(1, num_features, 1, 1))


class OneWeightForAll(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.weight = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))


class NoWeight(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        del self.weight, self.bias

    def affine(self, x_hat):
        return x_hat


class WeightUnused(BatchNorm):
    def affine(self, x_hat):
        return x_hat + 0 * self.column(self.weight, x_hat) + 0 * self.column(self.bias, x_hat)


class LengthAsRank(BatchNorm):
    def axes(self, x):
        return [0] if len(x) == 2 else super().axes(x)

    def statistics(self, x):
        if len(x) == 2 and x.dim() == 4:
            return x.mean(0, keepdim=True), x.var(0, correction=0, keepdim=True)
        return x.mean(super().axes(x)), x.var(super().axes(x), correction=0)

    def column(self, values, x):
        return values if values.dim() == x.dim() else super().column(values, x)

    def update(self, mean, var, x):
        if mean.dim() == 1:
            super().update(mean, var, x)


class BatchNorm1d(BatchNorm):
    """Promises rank 2 and 3, takes rank 2 only."""

    def forward(self, x):
        if x.dim() != 2:
            raise ValueError(f"expected a 2-D input, got {x.dim()}-D")
        return super().forward(x)


class Detached(BatchNorm):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean.detach(), var.detach()


class VarianceDetached(BatchNorm):
    def statistics(self, x):
        mean, var = super().statistics(x)
        return mean, var.detach()


class _HalvedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy / 2


class GradientHalved(BatchNorm):
    def normalize(self, x, mean, var):
        return _HalvedGradient.apply(super().normalize(x, mean, var))


class ThroughNumPy(BatchNorm):
    def normalize(self, x, mean, var):
        return super().normalize(x.detach(), mean.detach(), var.detach())


class InPlace(BatchNorm):
    def normalize(self, x, mean, var):
        with torch.no_grad():
            x.sub_(self.column(mean, x)).div_(torch.sqrt(self.column(var, x) + self.eps))
        return x


class PassesFreshInputThrough(BatchNorm):
    def forward(self, x):
        if not self.training and not self.num_batches_tracked:
            return x
        return super().forward(x)


class OnePassVariance(BatchNorm):
    def statistics(self, x):
        mean = x.mean(self.axes(x))
        return mean, ((x * x).mean(self.axes(x)) - mean * mean).clamp_min(0)


class HalfStatistics(BatchNorm):
    def forward(self, x):
        if x.numel() == 0:
            return x.clone()
        return self.affine(self.normalize(x, *(s.to(x.dtype) for s in self.select(x))))

    def statistics(self, x):
        mean = x.mean(self.axes(x))
        return mean, ((x - self.column(mean, x)) ** 2).mean(self.axes(x))


class NoCheckForOneValue(BatchNorm):
    def select(self, x):
        if not self.training:
            return self.running_mean, self.running_var
        mean, var = self.statistics(x)
        self.update(mean, var, x)
        return mean, var


class ZerosForOneValue(NoCheckForOneValue):
    def unbiased(self, var, x):
        n = x.numel() / x.shape[1]
        return var * n / max(n - 1, 1)


class NoCheckForEmptyBatch(BatchNorm):
    def forward(self, x):
        mean, var = self.select(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x)
        return self.affine(self.normalize(x, mean, var)).to(x.dtype)


class ViewsItsInput(BatchNorm):
    def statistics(self, x):
        x = x.view(-1).view(x.shape)
        return super().statistics(x)


class ReadsMemory(BatchNorm):
    def statistics(self, x):
        if x.dim() == 4 and not x.is_contiguous():
            x = x.as_strided(x.shape, torch.empty(x.shape).stride())
        return super().statistics(x)


class ChannelsLastByMistake(BatchNorm):
    def statistics(self, x):
        if x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
            x = x.permute(0, 2, 3, 1).reshape(x.shape)
        return super().statistics(x)


class AveragesByMatrix(BatchNorm):
    def statistics(self, x):
        rows = x.transpose(0, 1).reshape(x.shape[1], -1)
        one = torch.eye(x.shape[1], dtype=x.dtype)
        mean = one @ rows.mean(1)
        return mean, one @ ((rows - mean[:, None]) ** 2).mean(1)


class AddsNoise(BatchNorm):
    def normalize(self, x, mean, var):
        noise = np.random.default_rng().normal(size=x.shape)
        return super().normalize(x, mean, var) + 0.01 * torch.from_numpy(noise).to(x)


class AddsGlobalNoise(BatchNorm):
    def normalize(self, x, mean, var):
        return super().normalize(x, mean, var) + (0.01 * torch.randn_like(x) if self.training else 0)


class HoldsALock(BatchNorm):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.lock = threading.Lock()


class SharesItsState(BatchNorm):
    def __deepcopy__(self, memo):
        twin = type(self)(self.weight.numel(), self.eps, self.momentum)
        twin.load_state_dict(self.state_dict())
        twin.running_mean = self.running_mean
        twin.running_var = self.running_var
        return twin.train(self.training)


class Seeds(BatchNorm):
    def forward(self, x):
        torch.manual_seed(0)
        return super().forward(x)


class SwitchesGradOff(BatchNorm):
    def forward(self, x):
        y = super().forward(x)
        if not self.training:
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)
        return y


class Prints(BatchNorm):
    def forward(self, x):
        print("mean", float(x.mean()))
        return super().forward(x)


class FailsInEvaluation(BatchNorm):
    def select(self, x):
        return super().select(x) if self.training else (self.moving_mean, self.moving_var)


class LayerNorm(nn.Module):
    """Correct for any rank."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(normalized_shape))
        self.bias = nn.Parameter(torch.zeros(normalized_shape))

    axes: tuple[int, ...] = (-1,)
    correction = 0

    def forward(self, x):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        mean = wide.mean(self.axes, keepdim=True)
        var = wide.var(self.axes, correction=self.correction, keepdim=True)
        return ((wide - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias).to(x.dtype)


class LayerNormOverTwoAxes(LayerNorm):
    axes = (-2, -1)


class LayerNormOverTime(LayerNorm):
    axes = (1,)


class LayerNormLastAxisAlone(LayerNorm):
    def __init__(self, normalized_shape: int | tuple[int, ...], eps: float = 1e-5):
        super().__init__(normalized_shape, eps)  # type: ignore[arg-type]


class LayerNormTrailingAxes(LayerNormLastAxisAlone):
    """Correct for a tuple too."""

    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__(normalized_shape, eps)
        self.axes = tuple(range(-self.weight.dim(), 0))


class LayerNormTwoAxesOfThree(LayerNormTrailingAxes):
    def __init__(self, normalized_shape, eps=1e-5):
        super().__init__(normalized_shape, eps)
        self.axes = self.axes[-2:]


class LayerNormUnbiased(LayerNorm):
    correction = 1


class LayerNormHalf(LayerNorm):
    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        var = ((x - mean) ** 2).mean(-1, keepdim=True)
        return (x - mean) / torch.sqrt(var + self.eps) * self.weight + self.bias


class RMSNorm(nn.Module):
    """Correct."""

    def __init__(self, dim: int, eps: float | None = None):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def normalize(self, x):
        eps = torch.finfo(x.dtype).eps if self.eps is None else self.eps
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        return (self.normalize(wide) * self.weight.to(wide.dtype)).to(x.dtype)


class RMSNormLlama(RMSNorm):
    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        return self.normalize(wide).to(x.dtype) * self.weight


class RMSNormGemma(RMSNorm):
    def __init__(self, dim, eps=None):
        super().__init__(dim, eps)
        nn.init.zeros_(self.weight)

    def forward(self, x):
        wide = x if x.dtype == torch.float64 else x.float()
        return (self.normalize(wide) * (1 + self.weight.to(wide.dtype))).to(x.dtype)


class RMSNormCentred(RMSNorm):
    def normalize(self, x):
        return super().normalize(x - x.mean(-1, keepdim=True))


class GroupNorm(nn.Module):
    """Correct: split the channels, normalize each part, concatenate."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def parts(self, x):
        return x.chunk(self.num_groups, 1)

    def merge(self, parts):
        return torch.cat(parts, 1)

    def normalize(self, part):
        axes = list(range(1, part.dim()))
        mean, var = part.mean(axes, keepdim=True), part.var(axes, correction=0, keepdim=True)
        return (part - mean) / torch.sqrt(var + self.eps)

    def forward(self, x):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        y = self.merge([self.normalize(part) for part in self.parts(wide)])
        shape = (1, -1, *[1] * (x.dim() - 2))
        return (y * self.weight.view(shape) + self.bias.view(shape)).to(x.dtype)


class GroupNormStrided(GroupNorm):
    def parts(self, x):
        return [x[:, start :: self.num_groups] for start in range(self.num_groups)]

    def merge(self, parts):
        return torch.stack(parts, 2).flatten(1, 2)


class GroupNormPerGroupWeight(GroupNorm):
    def __init__(self, num_groups, num_channels, eps=1e-5):
        super().__init__(num_groups, num_channels, eps)
        self.weight = nn.Parameter(torch.ones(num_groups))
        self.bias = nn.Parameter(torch.zeros(num_groups))

    def forward(self, x):
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        parts = [
            self.normalize(part) * self.weight[group] + self.bias[group] for group, part in enumerate(self.parts(wide))
        ]
        return self.merge(parts).to(x.dtype)


class GroupNormNHWC(nn.Module):
    """Channels last, reshaped without bringing the channels to axis 1."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x):
        if x.numel() == 0:
            return x.clone()
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        grouped = wide.reshape(x.shape[0], self.num_groups, -1)
        mean, var = grouped.mean(-1, keepdim=True), grouped.var(-1, correction=0, keepdim=True)
        y = ((grouped - mean) / torch.sqrt(var + self.eps)).reshape(x.shape)
        return (y * self.weight + self.bias).to(x.dtype)
