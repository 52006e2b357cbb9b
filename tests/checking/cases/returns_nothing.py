"""It returns nothing and leaves its result in self.output."""

import numpy as np

TARGET = "LayerBatchNorm"
EXPECT = {"exit": 1, "has": ["biased-running-var"], "not": []}


class LayerBatchNorm:
    def __init__(self, n_inputs):
        self.gamma, self.beta = np.ones((1, n_inputs)), np.zeros((1, n_inputs))
        self.moving_mean, self.moving_variance = np.zeros((1, n_inputs)), np.ones((1, n_inputs))

    def forward(self, inputs, training=True):
        mean, var = self.moving_mean, self.moving_variance
        if training:
            mean, var = inputs.mean(0, keepdims=True), inputs.var(0, keepdims=True)
            self.moving_mean = 0.9 * self.moving_mean + 0.1 * mean
            self.moving_variance = 0.9 * self.moving_variance + 0.1 * var
        self.output = self.gamma * (inputs - mean) / np.sqrt(var + 1e-5) + self.beta
