"""A right layer normalization in NumPy whose hand-written backward pass is called in one way after the other."""

import numpy as np


class LayerNorm:
    """Right, backward too; subclasses say how the gradients are asked for and handed over."""

    def __init__(self, dim):
        self.gamma, self.beta = np.ones(dim), np.zeros(dim)

    def forward(self, x):
        self.std = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        self.x_hat = (x - x.mean(-1, keepdims=True)) / self.std
        return (self.gamma * self.x_hat + self.beta).astype(x.dtype)

    def gradients(self, dy):
        axes = tuple(range(dy.ndim - 1))
        d_hat = dy * self.gamma
        inner = d_hat - d_hat.mean(-1, keepdims=True) - self.x_hat * (d_hat * self.x_hat).mean(-1, keepdims=True)
        return inner / self.std, (dy * self.x_hat).sum(axes), dy.sum(axes)


class Detached:
    """A mixin with one fault: mean and variance are taken for constants."""

    def gradients(self, dy):
        _, dgamma, dbeta = super().gradients(dy)
        return dy * self.gamma / self.std, dgamma, dbeta


class OfInputAndGradient(LayerNorm):
    def backward(self, x, upstream):
        self.forward(x)
        dx, self.dgamma, self.dbeta = self.gradients(upstream)
        return dx


class WithRate(LayerNorm):
    """It updates its parameters at once."""

    def backward(self, upstream, lr):
        dx, dgamma, dbeta = self.gradients(upstream)
        self.gamma = self.gamma - lr * dgamma
        self.beta = self.beta - lr * dbeta
        return dx


class IntoDict(LayerNorm):
    def __init__(self, dim):
        super().__init__(dim)
        self.grads = {}

    def backward(self, upstream):
        dx, self.grads["gamma"], self.grads["beta"] = self.gradients(upstream)
        return dx


class IntoAttributes(LayerNorm):
    """It returns nothing."""

    def backward(self, upstream):
        self.dinputs, self.dgamma, self.dbeta = self.gradients(upstream)


class AsDict(LayerNorm):
    def backward(self, upstream):
        dx, dgamma, dbeta = self.gradients(upstream)
        return {"dgamma": dgamma, "dx": dx, "dbeta": dbeta}


class InAnotherOrder(LayerNorm):
    def backward(self, upstream):
        dx, dgamma, dbeta = self.gradients(upstream)
        return dbeta, dgamma, dx


class WithOptimizer(LayerNorm):
    """It calls optimizers that its framework sets."""

    def __init__(self, dim):
        super().__init__(dim)
        self.gamma_opt, self.beta_opt = None, None

    def backward(self, upstream):
        dx, dgamma, dbeta = self.gradients(upstream)
        self.gamma = self.gamma_opt.update(self.gamma, dgamma)
        self.beta = self.beta_opt.update(self.beta, dbeta)
        return dx


class UnderAnotherName(LayerNorm):
    def backprop(self, upstream):
        return self.gradients(upstream)


class StaticLayerNorm:
    """Forward and backward pass are static; what the backward pass needs is returned beside the result."""

    @staticmethod
    def forward(x, w, b):
        std = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        x_hat = (x - x.mean(-1, keepdims=True)) / std
        return (x_hat * w + b).astype(x.dtype), (x_hat, w, std)

    @staticmethod
    def backward(dout, cache):
        """Wrong: mean and variance are taken for constants."""
        x_hat, w, std = cache
        axes = tuple(range(dout.ndim - 1))
        return dout * w / std, (dout * x_hat).sum(axes), dout.sum(axes)
