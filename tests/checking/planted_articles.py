"""Normalization as articles, courses and notebooks write it: NumPy, functions, plain attributes."""

import numpy as np
import torch


class BatchNormLoops:
    """Correct, slowly: a loop over channels, moving averages as plain attributes."""

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        self.gamma = np.ones(num_features)
        self.beta = np.zeros(num_features)
        self.moving_mean = np.zeros(num_features)
        self.moving_var = np.ones(num_features)
        self.eps, self.momentum, self.training = eps, momentum, True

    def variance(self, values):
        return values.var()

    def store(self, channel, mean, var, n):
        m = self.momentum
        self.moving_mean[channel] = (1 - m) * self.moving_mean[channel] + m * mean
        self.moving_var[channel] = (1 - m) * self.moving_var[channel] + m * var * n / (n - 1)

    def __call__(self, x):
        if x.size == 0:
            return x.copy()
        out = np.empty_like(x)
        for c in range(x.shape[1]):
            values = x[:, c]
            if self.training:
                if values.size == 1:
                    raise ValueError("more than one value a channel is needed")
                mean, var = values.mean(), self.variance(values)
                self.store(c, mean, var, values.size)
            else:
                mean, var = self.moving_mean[c], self.moving_var[c]
            out[:, c] = self.gamma[c] * (values - mean) / np.sqrt(var + self.eps) + self.beta[c]
        return out


class BatchNormLoopsBiased(BatchNormLoops):
    def store(self, channel, mean, var, n):
        super().store(channel, mean, var * (n - 1) / n, n)


class BatchNormLoopsOnePass(BatchNormLoops):
    def variance(self, values):
        return max(np.mean(values**2) - np.mean(values) ** 2, values.dtype.type(0))


class BatchNorm2D:
    """The z-score of the whole tensor, under the name of batch normalization."""

    def __init__(self, eps=1e-5):
        self.eps = eps

    def forward(self, x):
        return (x - np.mean(x)) / np.sqrt(np.var(x) + self.eps)


def batch_norm_d2l(X, gamma, beta, moving_mean, moving_var, eps, momentum):  # noqa: N803
    """The form of a well-known textbook: switches on the grad mode, momentum weighs the old value."""
    if not torch.is_grad_enabled():
        x_hat = (X - moving_mean) / torch.sqrt(moving_var + eps)
    else:
        assert len(X.shape) in (2, 4)
        if len(X.shape) == 2:
            mean = X.mean(dim=0)
            var = ((X - mean) ** 2).mean(dim=0)
        else:
            mean = X.mean(dim=(0, 2, 3), keepdim=True)
            var = ((X - mean) ** 2).mean(dim=(0, 2, 3), keepdim=True)
        x_hat = (X - mean) / torch.sqrt(var + eps)
        moving_mean = momentum * moving_mean + (1.0 - momentum) * mean
        moving_var = momentum * moving_var + (1.0 - momentum) * var
    return gamma * x_hat + beta, moving_mean.data, moving_var.data


def batch_norm_any_order(x, weight, bias, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    """Correct, and returns (var, y, mean)."""
    if x.size == 0:
        return running_var, x.copy(), running_mean
    axes = tuple(a for a in range(x.ndim) if a != 1)
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var = running_mean, running_var
    if training:
        n = x.size // x.shape[1]
        if n == 1:
            raise ValueError("more than one value a channel is needed")
        mean, var = x.mean(axes), x.var(axes)
        running_mean = (1 - momentum) * running_mean + momentum * mean
        running_var = (1 - momentum) * running_var + momentum * var * n / (n - 1)
    x_hat = (x - mean.reshape(shape)) / np.sqrt(var.reshape(shape) + eps)
    return running_var, (x_hat * weight.reshape(shape) + bias.reshape(shape)).astype(x.dtype), running_mean


def batchnorm_forward(x, gamma, beta, bn_param):
    """The form of a well-known course: a cache, a dict of settings."""
    mode, eps, momentum = bn_param["mode"], bn_param.get("eps", 1e-5), bn_param.get("momentum", 0.9)
    _, d = x.shape
    running_mean = bn_param.get("running_mean", np.zeros(d, dtype=x.dtype))
    running_var = bn_param.get("running_var", np.zeros(d, dtype=x.dtype))
    if mode == "train":
        mean, var = x.mean(axis=0), x.var(axis=0)
        std = np.sqrt(var + eps)
        x_hat = (x - mean) / std
        cache = (x_hat, gamma, std)
        running_mean = momentum * running_mean + (1 - momentum) * mean
        running_var = momentum * running_var + (1 - momentum) * var
    else:
        x_hat = (x - running_mean) / np.sqrt(running_var + eps)
        cache = None
    bn_param["running_mean"], bn_param["running_var"] = running_mean, running_var
    return gamma * x_hat + beta, cache


def batchnorm_backward(dout, cache):
    x_hat, gamma, std = cache
    dx_hat = dout * gamma
    dx = (dx_hat - dx_hat.mean(axis=0) - x_hat * (dx_hat * x_hat).mean(axis=0)) / std
    return dx, (dout * x_hat).sum(axis=0), dout.sum(axis=0)


def bn_wrong_forward(x, gamma, beta, bn_param):
    return batchnorm_forward(x, gamma, beta, bn_param)


def bn_wrong_backward(dout, cache):
    dx, dgamma, dbeta = batchnorm_backward(dout, cache)
    return dx, dgamma, dbeta / len(dout)


def bn_detached_forward(x, gamma, beta, bn_param):
    return batchnorm_forward(x, gamma, beta, bn_param)


def bn_detached_backward(dout, cache):
    x_hat, gamma, std = cache
    return dout * gamma / std, (dout * x_hat).sum(axis=0), dout.sum(axis=0)


def layer_norm(x, gamma, beta, eps=1e-5):
    """Correct for any rank."""
    mean = x.mean(-1, keepdims=True)
    var = x.var(-1, keepdims=True)
    return (gamma * (x - mean) / np.sqrt(var + eps) + beta).astype(x.dtype)


class LayerNormNumPy:
    """Correct, with its own backward method."""

    def __init__(self, d_model, eps=1e-5):
        self.params = {"gamma": np.ones(d_model), "beta": np.zeros(d_model)}
        self.eps = eps

    def forward(self, x):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        self.std = np.sqrt(var + self.eps)
        self.x_hat = (x - mean) / self.std
        return (self.params["gamma"] * self.x_hat + self.params["beta"]).astype(x.dtype)

    def backward(self, dy):
        axes = tuple(range(dy.ndim - 1))
        self.dgamma, self.dbeta = (dy * self.x_hat).sum(axes), dy.sum(axes)
        g = dy * self.params["gamma"]
        return (g - g.mean(-1, keepdims=True) - self.x_hat * (g * self.x_hat).mean(-1, keepdims=True)) / self.std


class LayerNormNumPyForgetsVariance(LayerNormNumPy):
    def backward(self, dy):
        super().backward(dy)
        g = dy * self.params["gamma"]
        return (g - g.mean(-1, keepdims=True)) / self.std


class LayerNormNumPyWrongBias(LayerNormNumPy):
    def backward(self, dy):
        dx = super().backward(dy)
        self.dbeta = self.dbeta / len(dy)
        return dx


class BatchNormPromotes(BatchNormLoops):
    def __call__(self, x):
        return super().__call__(x) * np.float64(1) + np.zeros(1)


def batch_norm_rows(x, weight, bias, running_mean, running_var, training=True, momentum=0.1, eps=1e-5):
    """Correct for (N, C), and takes anything."""
    if len(x) == 0:
        return x.copy()
    mean, var = running_mean, running_var
    if training:
        n = len(x)
        if n == 1:
            raise ValueError("more than one value a channel is needed")
        mean, var = x.mean(axis=0), x.var(axis=0)
        if x.ndim == 2:
            running_mean += momentum * (mean - running_mean)
            running_var += momentum * (var * n / (n - 1) - running_var)
    return ((x - mean) / np.sqrt(var + eps) * weight + bias).astype(x.dtype)


def batch_norm_every_call_trains(x, gamma, beta, moving_mean, moving_var, eps=1e-5, momentum=0.9):
    """For (N, C), with no argument for evaluation; the running statistics are returned, rightly updated."""
    mean, var = x.mean(0), x.var(0)
    y = ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(x.dtype)
    return y, momentum * moving_mean + (1 - momentum) * mean, momentum * moving_var + (1 - momentum) * var


def batch_norm_every_call_trains_torch(x, gamma, beta, moving_mean, moving_var, eps=1e-5, momentum=0.1):
    """For any rank, with no argument for evaluation; returns (var, mean, y) in torch's convention."""
    axes, column = [a for a in range(x.dim()) if a != 1], (1, -1, *[1] * (x.dim() - 2))
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    mean, var = wide.mean(axes), wide.var(axes, correction=0)
    y = (wide - mean.view(column)) / torch.sqrt(var.view(column) + eps) * gamma.view(column) + beta.view(column)
    with torch.no_grad():
        new_mean = (1 - momentum) * moving_mean + momentum * mean
        new_var = (1 - momentum) * moving_var + momentum * wide.transpose(0, 1).flatten(1).var(1)
    return new_var, new_mean, y.to(x.dtype)


def batch_norm_with_batch_statistics(x, gamma, beta, moving_mean, moving_var, training=True):
    """The new running statistics in a tuple, behind the batch's own in a dict."""
    axes = tuple(range(x.ndim - 1))
    mean, var = (x.mean(axes), x.var(axes)) if training and x.size else (moving_mean, moving_var)
    y = ((x - mean) / np.sqrt(var + 1e-5) * gamma + beta).astype(x.dtype)
    if not training or not x.size:
        return y, {}, (moving_var, moving_mean)
    return y, {"mean": mean, "var": var}, (0.9 * moving_var + 0.1 * var, 0.9 * moving_mean + 0.1 * mean)


def rms_norm(x, scale, eps=1e-6):
    """Correct, with an eps of its own."""
    return (x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * scale).astype(x.dtype)


def instance_norm(x, eps=1e-5):
    """Correct."""
    if x.size and x[0, 0].size == 1:
        raise ValueError("more than one value a channel is needed")
    axes = tuple(range(2, x.ndim))
    return (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + eps)


def group_norm(x, gamma, beta, G, eps=1e-5):  # noqa: N803
    """Correct."""
    n, c = x.shape[:2]
    grouped = x.reshape(n, G, c // G, *x.shape[2:])
    axes = tuple(range(2, grouped.ndim))
    normalized = (grouped - grouped.mean(axes, keepdims=True)) / np.sqrt(grouped.var(axes, keepdims=True) + eps)
    shape = (1, -1, *[1] * (x.ndim - 2))
    return (normalized.reshape(x.shape) * gamma.reshape(shape) + beta.reshape(shape)).astype(x.dtype)


class Standardize(torch.nn.Module):
    """Tells nothing by its name; it is layer normalization."""

    def __init__(self, dim):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones(dim))
        self.shift = torch.nn.Parameter(torch.zeros(dim))

    def forward(self, h):
        wide = h.float() if h.dtype in (torch.float16, torch.bfloat16) else h
        centred = wide - wide.mean(-1, keepdim=True)
        y = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + 1e-5)
        return (y * self.gain + self.shift).to(h.dtype)


class BatchNormChannelsLast:
    """Correct for (N, ..., C), as Keras and Flax have it."""

    def __init__(self, epsilon=1e-3, momentum=0.99, features=6):
        self.scale, self.bias = np.ones(features), np.zeros(features)
        self.mean_ema, self.var_ema = np.zeros(features), np.ones(features)
        self.epsilon, self.momentum = epsilon, momentum

    def __call__(self, x, training=False):
        if training and x.size:
            axes = tuple(range(x.ndim - 1))
            mean, var = x.mean(axes), x.var(axes)
            self.mean_ema = self.momentum * self.mean_ema + (1 - self.momentum) * mean
            self.var_ema = self.momentum * self.var_ema + (1 - self.momentum) * var
        else:
            mean, var = self.mean_ema, self.var_ema
        return (((x - mean) / np.sqrt(var + self.epsilon)) * self.scale + self.bias).astype(x.dtype)


def batch_norm_channels_last(x, scale, bias, running_mean, running_var, training=True, momentum=0.99, epsilon=1e-5):
    """Correct for (N, ..., C), without a state of its own."""
    axes = tuple(range(x.ndim - 1))
    mean, var = running_mean, running_var
    if training and x.size:
        mean, var = x.mean(axes), x.var(axes)
        running_mean = momentum * running_mean + (1 - momentum) * mean
        running_var = momentum * running_var + (1 - momentum) * var
    y = (x - mean) / np.sqrt(var + epsilon) * scale + bias
    return y.astype(x.dtype), running_mean, running_var
