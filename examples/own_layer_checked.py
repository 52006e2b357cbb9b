"""Check a layer of your own from Python: what it computes, what is wrong with it, and a test for your suite.

Expect two faults that are found (the variance is unbiased, momentum weighs the old value) with the numbers that show them,
and the mended layer that passes. The layer's code is run, in a process of its own.
"""

import torch
from torch import nn

import normkit
from normkit.testing import assert_conforms


class Draft(nn.Module):
    """A batch norm as one writes it from memory."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))
        self.bias = nn.Parameter(torch.zeros(num_features))
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))

    def forward(self, x):  # (N, C), (N, C, L)
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = self.statistics(x.transpose(0, 1).flatten(1))
        shape = (-1, 1) if x.dim() == 3 else (-1,)
        x_hat = (x - mean.reshape(shape)) / torch.sqrt(var.reshape(shape) + self.eps)
        return x_hat * self.weight.reshape(shape) + self.bias.reshape(shape)

    def statistics(self, x):  # (C, n)
        mean, var = x.mean(1), x.var(1)
        with torch.no_grad():
            self.running_mean.mul_(self.momentum).add_(mean * (1 - self.momentum))
            self.running_var.mul_(self.momentum).add_(var * (1 - self.momentum))
        return mean, var


class Mended(Draft):
    def statistics(self, x):
        if x.shape[1] == 1:
            raise ValueError("expected more than 1 value per channel in training")
        with torch.no_grad():
            self.running_mean.lerp_(x.mean(1), self.momentum)
            self.running_var.lerp_(x.var(1), self.momentum)  # unbiased: that is what torch stores
        return x.mean(1), x.var(1, correction=0)


report = normkit.check(Draft, family="batch", convention="torch")
print(f"Draft is {report.verdict}; it averages over {report.identity.reduces}")
for finding in report.findings:
    if not finding.edge:
        print(f"  {finding.severity} {finding.code}: {finding.evidence}")

report = assert_conforms(Mended, like=nn.BatchNorm1d)  # in a test: raises an AssertionError with the findings
print(f"Mended is {report.verdict}: {len(report.passed)} checks passed; left as warnings: {', '.join(report.codes)}")
