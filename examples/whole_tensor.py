"""A 2-D batch normalization as one finds it explained: subtract the mean, divide by the standard deviation."""

import numpy as np


class BatchNorm2D:
    def __init__(self, eps=1e-5):
        self.eps = eps

    def forward(self, x):  # x: (N, C, H, W)
        mean = np.mean(x)
        var = np.var(x)
        return (x - mean) / np.sqrt(var + self.eps)
