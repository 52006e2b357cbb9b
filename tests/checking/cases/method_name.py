"""The one public method that takes an array and gives one of its shape is the forward pass."""

import numpy as np

TARGET = "Norm"
EXPECT = {"exit": 0, "has": ["running-stats-missing"], "not": []}


class Norm:
    def __init__(self, dim):
        self.gamma, self.beta = np.ones(dim), np.zeros(dim)

    def batchnorm_forward(self, x):
        return self.gamma * (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5) + self.beta
