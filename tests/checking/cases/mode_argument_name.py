"""The boolean argument of forward with which it uses its running statistics is the mode, whatever it is called."""

import numpy as np

TARGET = "ModalBatchNorm"
EXPECT = {"exit": 0, "has": [], "not": ["eval-ignores-running-stats", "running-stats-updated-in-eval"]}


class ModalBatchNorm:
    def __init__(self, num_features):
        self.gamma, self.beta = np.ones(num_features), np.zeros(num_features)
        self.running_mean, self.running_var = np.zeros(num_features), np.ones(num_features)

    def forward(self, x, isTrain=True):
        mean, var = self.running_mean, self.running_var
        if isTrain:
            if len(x) < 2:
                raise ValueError("one value a channel")
            mean, var = x.mean(0), x.var(0)
            self.running_mean = 0.9 * self.running_mean + 0.1 * mean
            self.running_var = 0.9 * self.running_var + 0.1 * x.var(0, ddof=1)
        return self.gamma * (x - mean) / np.sqrt(var + 1e-5) + self.beta
