"""A right batch or layer normalization that keeps its weight and bias in one form after the other."""

import numpy as np
import torch
from torch import nn


class BatchNorm2d(nn.BatchNorm2d):
    """Right; subclasses say in learnt where weight and bias are."""

    def __init__(self, num_features):
        super().__init__(num_features, affine=False)
        self.start(num_features)

    def forward(self, x):
        weight, bias = self.learnt()
        return super().forward(x) * weight[:, None, None] + bias[:, None, None]


class InParameterList(BatchNorm2d):
    def start(self, count):
        self.learned = nn.ParameterList([torch.ones(count), torch.zeros(count)])

    def learnt(self):
        return self.learned[0], self.learned[1]


class InParameterDict(BatchNorm2d):
    def start(self, count):
        self.learned = nn.ParameterDict({"a": torch.ones(count), "b": torch.zeros(count)})

    def learnt(self):
        return self.learned["a"], self.learned["b"]


class UnderOtherNames(BatchNorm2d):
    def start(self, count):
        self.first, self.second = nn.Parameter(torch.ones(count)), nn.Parameter(torch.zeros(count))

    def learnt(self):
        return self.first, self.second


class NamesExchanged(BatchNorm2d):
    """What is called bias scales, what is called weight shifts."""

    def start(self, count):
        self.bias, self.weight = nn.Parameter(torch.ones(count)), nn.Parameter(torch.zeros(count))

    def forward(self, x):
        self._check_input_dim(x)
        y = nn.functional.batch_norm(
            x, self.running_mean, self.running_var, None, None, self.training, self.momentum, self.eps
        )
        return y * self.bias[:, None, None] + self.weight[:, None, None]


class OfTwoRows(BatchNorm2d):
    """Weight and bias are the rows of one parameter."""

    def start(self, count):
        self.both = nn.Parameter(torch.stack([torch.ones(count), torch.zeros(count)]))

    def learnt(self):
        return self.both[0], self.both[1]


class OneNumberEach(BatchNorm2d):
    def start(self, count):
        self.a, self.b = nn.Parameter(torch.ones(())), nn.Parameter(torch.zeros(()))

    def learnt(self):
        return self.a.expand(self.num_features), self.b.expand(self.num_features)


class AsLogarithm(BatchNorm2d):
    """The weight is the exponential of what it learns, so it stays positive."""

    def start(self, count):
        self.logarithm, self.shift = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.zeros(count))

    def learnt(self):
        return self.logarithm.exp(), self.shift


class AroundOne(BatchNorm2d):
    """The weight is 1 plus what it learns."""

    def start(self, count):
        self.gain, self.shift = nn.Parameter(torch.zeros(count)), nn.Parameter(torch.zeros(count))

    def learnt(self):
        return 1 + self.gain, self.shift


class WithoutBias(BatchNorm2d):
    def start(self, count):
        self.factor = nn.Parameter(torch.ones(count))

    def learnt(self):
        return self.factor, 0 * self.factor


class GivenPerBroadcast(nn.BatchNorm2d):
    """Both are given in each call, and broadcast as they are: (1, C, 1, 1)."""

    def __init__(self, num_features):
        super().__init__(num_features, affine=False)

    def forward(self, x, a, b):
        assert a.dim() == 4
        return super().forward(x) * a + b


class LayerNormOfNumbers:
    """One number each, as plain attributes."""

    def __init__(self):
        self.gamma, self.beta = 1.0, 0.0

    def scale(self):
        return self.gamma

    def forward(self, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (self.scale() * (x - mean) / np.sqrt(var + 1e-5) + self.beta).astype(x.dtype)


class LayerNormOfNumbersOfAnyName(LayerNormOfNumbers):
    def __init__(self):
        super().__init__()
        del self.gamma
        self.alpha = 1.0

    def scale(self):
        return self.alpha


class LayerNormOfParams:
    """In a dict of parameters, as frameworks of courses keep them."""

    def __init__(self, dim):
        self.params = {"W": np.ones(dim), "shift": np.zeros(dim)}

    def forward(self, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (self.params["W"] * ((x - mean) / np.sqrt(var + 1e-5)) + self.params["shift"]).astype(x.dtype)


class LayerNormOfC:
    """Its bias has the name that is usual for the number of channels."""

    def __init__(self, dim):
        self.W, self.c = np.ones(dim), np.zeros(dim)

    def forward(self, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (self.W * ((x - mean) / np.sqrt(var + 1e-5)) + self.c).astype(x.dtype)
