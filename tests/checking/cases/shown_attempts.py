"""It returns an object of its own, through which no gradients can be followed: what is said of that names it."""

import numpy as np

TARGET = "WrappedNorm"
EXPECT = {"exit": 2, "has": [], "not": [], "says": "Box"}


class Box:
    def __init__(self, data):
        self.data = data


class WrappedNorm:
    def forward(self, x):
        if type(x).__module__ == "torch":
            raise TypeError("Cannot interpret 'torch.float32' as a data type")
        return Box((x - x.mean(0)) / (x.var(0) + 1e-5) ** 0.5)
