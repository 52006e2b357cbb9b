"""Weight and bias come with each call of a module, in the shape in which they broadcast: (C, 1, 1) or (1, C, 1, 1)."""

import torch
from torch import nn

TARGET = "GivenAffine2d"
EXPECT = {"exit": 0, "has": [], "not": ["affine-missing"]}


class GivenAffine2d(nn.BatchNorm2d):
    def __init__(self, num_features):
        super().__init__(num_features, affine=False)

    def forward(self, x, gain, bias):
        return super().forward(x) * gain + bias
