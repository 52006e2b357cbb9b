"""It needs a mask beside the input. With a mask of ones it is a layer normalization."""

import torch
from torch import nn

TARGET = "MaskedLayerNorm"
EXPECT = {"exit": 0, "has": [], "not": []}


class MaskedLayerNorm(nn.LayerNorm):
    def forward(self, x, mask):
        return super().forward(x) * mask.to(x.dtype)
