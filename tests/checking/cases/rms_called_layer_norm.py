"""Called LayerNorm, but an RMS normalization to the last digits and without a bias: a note, no wrong formula."""

import torch
from torch import nn

TARGET = "T5StyleLayerNorm"
EXPECT = {"exit": 0, "has": [], "not": ["formula-wrong", "affine-missing"]}


class T5StyleLayerNorm(nn.Module):
    def __init__(self, hidden_size, eps=1.1920929e-07):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(hidden_size)), eps

    def forward(self, x):
        y = x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + self.eps)
        return (y * self.weight.float()).type_as(x)
