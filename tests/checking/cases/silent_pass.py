"""It keeps nothing before its first batch, so evaluation of a fresh one raises. Its formula is judged all the same."""

import numpy as np

TARGET = "LateBatchNorm"
EXPECT = {"exit": 1, "has": ["eps-misplaced", "unbiased-normalization"], "not": []}


class LateBatchNorm:
    def __init__(self):
        self.training, self.running_mean, self.running_var = True, None, None

    def forward(self, x):
        if not self.training:
            return (x - self.running_mean) / (np.sqrt(self.running_var) + 0.01)
        mean, std = x.mean(0), x.std(0, ddof=1)
        first = self.running_mean is None
        self.running_mean = mean if first else 0.9 * self.running_mean + 0.1 * mean
        self.running_var = std**2 if first else 0.9 * self.running_var + 0.1 * std**2
        return (x - mean) / (std + 0.01)
