"""``bias`` is a required flag of the constructor: True serves where an array does not."""

import torch
from torch import nn

TARGET = "OptionalBiasLayerNorm"
EXPECT = {"exit": 0, "has": [], "not": []}


class OptionalBiasLayerNorm(nn.Module):
    def __init__(self, ndim, bias):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(ndim))
        self.bias = nn.Parameter(torch.zeros(ndim)) if bias else None

    def forward(self, x):
        return nn.functional.layer_norm(x, self.weight.shape, self.weight, self.bias)
