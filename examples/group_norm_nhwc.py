"""Group normalization, ported from channels first to channels last by moving the C in the shapes."""

import torch
from torch import nn


class GroupNorm(nn.Module):
    def __init__(self, num_channels, num_groups=32, eps=1e-5):
        super().__init__()
        self.num_groups = num_groups
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_channels))
        self.bias = nn.Parameter(torch.zeros(num_channels))

    def forward(self, x):  # x: (N, H, W, C)
        N, H, W, C = x.shape
        x = x.reshape(N, self.num_groups, -1)
        mean = x.mean(-1, keepdim=True)
        var = x.var(-1, keepdim=True, unbiased=False)
        x = (x - mean) / torch.sqrt(var + self.eps)
        return x.reshape(N, H, W, C) * self.weight + self.bias
