"""Normalization on JAX arrays: pure functions, and classes that keep their arrays as attributes."""

import jax
import jax.numpy as jnp


def layer_norm(x, gamma, beta, eps=1e-5):
    """Correct."""
    wide = x.astype(jnp.float32)
    mean, var = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    return ((wide - mean) * jax.lax.rsqrt(var + eps) * gamma + beta).astype(x.dtype)


def batch_norm_every_call_trains(x, gamma, beta, moving_mean, moving_var, eps=1e-5, momentum=0.9):
    """For (N, C), with no argument for evaluation; the running statistics are returned, rightly updated."""
    mean, var = x.mean(0), x.var(0)
    y = (x - mean) / jnp.sqrt(var + eps) * gamma + beta
    return y, momentum * moving_mean + (1 - momentum) * mean, momentum * moving_var + (1 - momentum) * var


class BatchNorm:
    """Correct for (N, ..., C), as Flax has it."""

    def __init__(self, features, epsilon=1e-5, momentum=0.99):
        self.scale, self.bias = jnp.ones(features), jnp.zeros(features)
        self.mean_ema, self.var_ema = jnp.zeros(features), jnp.ones(features)
        self.epsilon, self.momentum = epsilon, momentum

    def __call__(self, x, training=True):
        wide, axes = x.astype(jnp.float32), tuple(range(x.ndim - 1))
        mean, var = self.mean_ema, self.var_ema
        if training and x.size:
            mean, var = wide.mean(axes), wide.var(axes)
            self.mean_ema = self.momentum * self.mean_ema + (1 - self.momentum) * mean
            self.var_ema = self.momentum * self.var_ema + (1 - self.momentum) * var
        return ((wide - mean) * jax.lax.rsqrt(var + self.epsilon) * self.scale + self.bias).astype(x.dtype)


class LayerNormDetached:
    def __init__(self, dim):
        self.weight, self.bias = jnp.ones(dim), jnp.zeros(dim)

    def __call__(self, x):
        wide = x.astype(jnp.float32)
        mean, var = wide.mean(-1, keepdims=True), jax.lax.stop_gradient(wide.var(-1, keepdims=True))
        return ((wide - mean) / jnp.sqrt(var + 1e-5) * self.weight + self.bias).astype(x.dtype)
