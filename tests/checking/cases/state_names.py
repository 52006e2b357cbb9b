"""Buffers of C numbers that training moves towards the batch's mean and variance are running statistics by any name."""

import torch
from torch import nn

TARGET = "TrackedBatchNorm2d"
EXPECT = {"exit": 1, "has": ["biased-running-var", "state-attached"], "not": ["running-stats-missing"]}


class TrackedBatchNorm2d(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("avg_mean", torch.zeros(num_features))
        self.register_buffer("avg_var", torch.ones(num_features))

    def forward(self, x):
        mean, var = self.avg_mean, self.avg_var
        if self.training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
            self.avg_mean, self.avg_var = 0.9 * self.avg_mean + 0.1 * mean, 0.9 * self.avg_var + 0.1 * var
        s = [t[:, None, None] for t in (mean, var, self.weight, self.bias)]
        return (x - s[0]) / (s[1] + 1e-5).sqrt() * s[2] + s[3]
