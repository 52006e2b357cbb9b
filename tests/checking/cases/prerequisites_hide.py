"""Evaluation fails. Shape, initial values and state_dict need no evaluation, so their faults are said as well."""

import torch
from torch import nn

TARGET = "HastyBatchNorm2d"
EXPECT = {
    "exit": 1,
    "has": ["call-fails", "output-shape", "affine-init", "running-stats-init", "state-not-saved"],
    "not": [],
}


class HastyBatchNorm2d(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(num_features)), nn.Parameter(torch.randn(num_features))
        self.running_mean, self.running_var = torch.zeros(num_features), torch.zeros(num_features)

    def forward(self, x):
        x = x.flatten(2)
        if not self.training:
            return (x - self.running_mean[None, None, :, None]) / self.running_var
        var, mean = torch.var_mean(x, dim=(0, 2), correction=0)
        self.running_mean = 0.9 * self.running_mean + 0.1 * mean.detach()
        self.running_var = 0.9 * self.running_var + 0.1 * var.detach()
        return (x - mean[:, None]) / (var[:, None] + 1e-5).sqrt() * self.weight[:, None] + self.bias[:, None]
