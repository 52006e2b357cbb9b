"""It trains on smoothed sums. A second batch shows that, whatever the sums are called."""

import torch
from torch import nn

TARGET = "SmoothedNorm2d"
EXPECT = {"exit": 1, "has": ["train-uses-running-stats"], "not": []}


class SmoothedNorm2d(nn.Module):
    def __init__(self, nf):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(nf)), nn.Parameter(torch.zeros(nf))
        self.register_buffer("total", torch.zeros(nf))
        self.register_buffer("squares", torch.zeros(nf))
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x):
        if self.training:
            with torch.no_grad():
                self.total.mul_(0.9).add_(x.sum((0, 2, 3)))
                self.squares.mul_(0.9).add_((x * x).sum((0, 2, 3)))
                self.seen.mul_(0.9).add_(x.numel() / x.size(1))
        mean = self.total / self.seen
        var = self.squares / self.seen - mean**2
        s = [t[:, None, None] for t in (mean, var, self.weight, self.bias)]
        return (x - s[0]) / (s[1] + 1e-5).sqrt() * s[2] + s[3]
