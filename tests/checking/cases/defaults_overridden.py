"""Its author calls it with its defaults, gamma=1.0 and beta=0.0. So called it equals torch.nn.functional.group_norm."""

import torch

TARGET = "group_norm"
EXPECT = {"exit": 0, "has": [], "not": ["wrong-axes"]}


def group_norm(x, num_groups, num_channels, eps=1e-5, gamma=1.0, beta=0.0):
    parts = []
    for part in x.split(num_channels // num_groups, dim=1):
        var, mean = torch.var_mean(part, dim=(1, 2, 3), keepdim=True, correction=0)
        parts.append((part - mean) / torch.sqrt(var + eps) * gamma + beta)
    return torch.cat(parts, dim=1)
