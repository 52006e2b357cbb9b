"""It averages standard deviations. That is a wrong running variance, under whatever name it is kept."""

import torch
from torch import nn

TARGET = "DeviationNorm2d"
EXPECT = {"exit": 1, "has": ["running-var-wrong"], "not": ["CRASH"]}


class DeviationNorm2d(nn.BatchNorm2d):
    def __init__(self, num_features):
        super().__init__(num_features, affine=False, track_running_stats=False)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_std", torch.ones(num_features))

    def forward(self, x):
        mean, std = self.running_mean, self.running_std
        if self.training:
            mean, std = x.mean((0, 2, 3)), (x.var((0, 2, 3), correction=0) + 1e-5).sqrt()
            self.running_mean.lerp_(mean.detach(), 0.1)
            self.running_std.lerp_(std.detach(), 0.1)
        return (x - mean[:, None, None]) / std[:, None, None]
