"""It is right for (N, C) and refuses (N, C, L). That it runs on (N, L, C) by broadcasting tells no layout."""

import torch
from torch import nn

TARGET = "FlatBatchNorm1d"
EXPECT = {"exit": 1, "has": ["rank-unsupported", "biased-running-var"], "not": ["wrong-axes"]}


class FlatBatchNorm1d(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = x.mean(0), x.var(0, correction=0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
            self.running_var = 0.9 * self.running_var + 0.1 * var.detach()
        return self.weight * (x - mean) / (var + 1e-5).sqrt() + self.bias
