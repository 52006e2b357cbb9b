"""Layer normalization of images over C, H, W with one weight a channel equals torch.nn.GroupNorm(1, C)."""

import torch
from torch import nn

TARGET = "ImageLayerNorm"
EXPECT = {"exit": 0, "has": [], "not": ["wrong-axes"]}


class ImageLayerNorm(nn.Module):
    def __init__(self, num_features):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(num_features)), nn.Parameter(torch.zeros(num_features))

    def forward(self, x):
        n, c, h, w = x.shape
        var, mean = torch.var_mean(x.float(), dim=(1, 2, 3), keepdim=True, correction=0)
        y = ((x.float() - mean) * (var + 1e-5).rsqrt()).to(x.dtype)
        return y * self.weight.view(1, c, 1, 1) + self.bias.view(1, c, 1, 1)
