"""running_var starts at 1 - 1e-5, which is nearer to 1 than eps: no wrong start."""

import torch
from torch import nn

TARGET = "NearlyOne2d"
EXPECT = {"exit": 0, "has": [], "not": ["running-stats-init"]}


class NearlyOne2d(nn.BatchNorm2d):
    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__(num_features, eps, momentum)
        self.running_var.sub_(1e-5)
