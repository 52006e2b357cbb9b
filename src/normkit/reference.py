r"""Normalization in NumPy float64, written to be read. No tricks, no speed, no torch.

Every function works on the 4-D view (A, R, K, S) of :mod:`normkit.spec`: statistics run over R and S, one for each of
A and K. Which norm it is, is nothing but the view:

>>> import numpy as np
>>> from normkit.spec import Norm
>>> x = np.random.default_rng(0).normal(3.0, 2.0, size=(8, 4, 5, 5))  # (N, C, H, W)
>>> y = normalize(x, Norm("batch")).y
>>> np.allclose(y.mean(axis=(0, 2, 3)), 0.0)  # each channel has mean 0 ...
True
>>> y = normalize(x, Norm("group", num_groups=2)).y
>>> np.allclose(y.reshape(8, 2, -1).mean(axis=2), 0.0)  # ... or each group of channels of each sample
True

References:
    Ioffe & Szegedy 2015 (batch), arXiv:1502.03167. Ba, Kiros & Hinton 2016 (layer), arXiv:1607.06450.
    Ulyanov, Vedaldi & Lempitsky 2016 (instance), arXiv:1607.08022. Wu & He 2018 (group), arXiv:1803.08494.
    Zhang & Sennrich 2019 (RMS), arXiv:1910.07467.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from normkit.spec import Norm, View, view

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """What a forward pass computed.

    Args:
        y: The result, in the shape of x.
        mean: The mean of each statistic, shape (A, K); zeros where the norm subtracts no mean.
        var: The biased variance of each statistic, shape (A, K).
        count: How many elements each statistic averages.
    """

    y: Array
    mean: Array
    var: Array
    count: int


@dataclass(frozen=True)
class Backward:
    """The gradients of a loss with respect to x, weight and bias, in their shapes."""

    dx: Array
    dweight: Array
    dbias: Array


def normalize(
    x: ArrayLike,
    norm: Norm,
    weight: ArrayLike | None = None,
    bias: ArrayLike | None = None,
    eps: float = 1e-5,
    statistics: tuple[ArrayLike, ArrayLike] | None = None,
) -> Forward:
    r"""Normalize x.

    .. math:: y = \hat x \cdot \gamma + \beta, \qquad \hat x = (x - \mu) / \sqrt{\sigma^2 + \epsilon}

    Args:
        x: Any shape that the norm accepts.
        norm: Which normalization.
        weight: Gamma; None stands for ones.
        bias: Beta; None stands for zeros.
        eps: Added to the variance, inside the square root.
        statistics: A mean and a variance to use in place of those of x (evaluation with running statistics).
    Shape:
        weight, bias: ``norm.affine_shape(x.shape)``;  statistics: A · K elements each.
    Raises:
        ShapeError: the shape of x does not fit the norm.
        TypeError: an array has a mask, which would be lost.
    """
    x = _float64(x)
    v = view(norm, x.shape)
    x4 = x.reshape(v.shape)  # (A, R, K, S)
    if statistics is None:
        mean, var = moments(x4, subtract_mean=norm.subtract_mean)  # (A, K)
    else:
        mean, var = (np.reshape(_float64(s), (v.shape[0], v.shape[2])) for s in statistics)  # (A, K)
    y4 = _standardize(x4, mean, var, eps)  # (A, R, K, S)
    if weight is not None:
        y4 = y4 * _spread(weight, v)  # (A, R, K, S)
    if bias is not None:
        y4 = y4 + _spread(bias, v)  # (A, R, K, S)
    return Forward(y4.reshape(x.shape), mean, var, v.count)


def moments(x4: Array, *, subtract_mean: bool = True) -> tuple[Array, Array]:
    r"""Mean and biased variance over R and S, in two passes.

    E[x²] - E[x]² would save a pass and lose every digit once the mean is far larger than the standard deviation.
    """
    mean = x4.mean(axis=(1, 3)) if subtract_mean else np.zeros((x4.shape[0], x4.shape[2]))  # (A, K)
    deviation = x4 - mean[:, None, :, None]  # (A, R, K, S)
    return mean, np.square(deviation).mean(axis=(1, 3))  # (A, K)


def gradients(
    dy: ArrayLike,
    x: ArrayLike,
    norm: Norm,
    weight: ArrayLike | None = None,
    eps: float = 1e-5,
    statistics: tuple[ArrayLike, ArrayLike] | None = None,
) -> Backward:
    r"""The gradients of a loss, given its gradient dy with respect to y.

    The mean and the variance depend on x too, so two projections are taken out of :math:`g = dy \cdot \gamma`:

    .. math:: dx = \frac{g - \overline{g} - \hat x \cdot \overline{g \cdot \hat x}}{\sqrt{\sigma^2 + \epsilon}}

    Where no mean is subtracted there is no :math:`\overline g`; with precomputed statistics, neither of the two.

    Args:
        dy: In the shape of x.
        x: The input of the forward pass, like norm, weight, eps and statistics.
    """
    x, dy = _float64(x), _float64(dy)
    v = view(norm, x.shape)
    forward = normalize(x, norm, None, None, eps, statistics)
    x_hat = forward.y.reshape(v.shape)  # (A, R, K, S)
    dy4 = dy.reshape(v.shape)  # (A, R, K, S)
    g = dy4 if weight is None else dy4 * _spread(weight, v)  # (A, R, K, S)
    dx4 = g  # (A, R, K, S)
    if statistics is None:
        if norm.subtract_mean:
            dx4 = dx4 - g.mean(axis=(1, 3), keepdims=True)  # (A, R, K, S)
        dx4 = dx4 - x_hat * (g * x_hat).mean(axis=(1, 3), keepdims=True)  # (A, R, K, S)
    dx4 = dx4 / np.sqrt(forward.var + eps)[:, None, :, None]  # (A, R, K, S)
    affine_shape = norm.affine_shape(x.shape)
    return Backward(
        dx4.reshape(x.shape), _gather(dy4 * x_hat, v).reshape(affine_shape), _gather(dy4, v).reshape(affine_shape)
    )


def update_running(
    running: ArrayLike, batch: ArrayLike, momentum: float | None, num_batches_tracked: int = 1
) -> NDArray[Any]:
    r"""One step of a running statistic: :math:`(1 - m) \cdot running + m \cdot batch`.

    Args:
        momentum: The weight m of the **new** batch, torch's meaning (Keras and Flax mean 1 - m). None: the plain
            average of all batches so far, :math:`m = 1 / n`.
        num_batches_tracked: n, this batch included.
    """
    m = 1.0 / num_batches_tracked if momentum is None else momentum
    return (1.0 - m) * _float64(running) + m * _float64(batch)  # (C,)


def unbiased(var: ArrayLike, count: int) -> Array:
    """The variance that is stored, :math:`var · n / (n - 1)`; the one that normalizes is the biased one."""
    if count < 2:
        raise ValueError(f"the unbiased variance needs at least 2 values per statistic; got {count}")
    return _float64(var) * (count / (count - 1))  # (A, K)


def _float64(x: ArrayLike) -> Array:
    """Return numbers as an array in float64."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError("expected a plain array; got a numpy.ma.MaskedArray, whose mask would be lost: fill it")
    return np.asarray(x, dtype=np.float64)


def _standardize(x4: Array, mean: Array, var: Array, eps: float) -> Array:
    rstd = 1.0 / np.sqrt(var + eps)  # (A, K)
    return (x4 - mean[:, None, :, None]) * rstd[:, None, :, None]  # (A, R, K, S)


def _spread(weight: ArrayLike, v: View) -> Array:
    """Repeat weight or bias to every element that it applies to."""
    factors = _float64(weight).reshape(v.affine_sizes)  # one axis a factor, 1 where weight does not vary
    return np.broadcast_to(factors, v.sizes).reshape(v.shape)  # (A, R, K, S)


def _gather(gradient: Array, v: View) -> Array:
    """Sum a gradient over all elements that share a weight or bias: the transpose of _spread."""
    total: Array = np.sum(gradient.reshape(v.sizes), axis=v.not_affine)  # (affine factors)
    return total
