"""Layer normalization for sequences (N, T, D): everything but the batch axis, as for images."""

import numpy as np


def layer_norm(x, gamma, beta, eps=1e-5):
    axes = tuple(range(1, x.ndim))
    mean = x.mean(axis=axes, keepdims=True)
    var = (x**2).mean(axis=axes, keepdims=True) - mean**2
    return gamma * (x - mean) / np.sqrt(var + eps) + beta
