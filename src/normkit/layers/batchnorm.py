"""BatchNorm1d, 2d and 3d, and the classes that learn their number of channels from the first input.

State, defaults, errors and repr are inherited from torch.nn, so they cannot differ from it; what is ours is the
forward pass.
"""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from normkit import functional as F
from normkit.layers import held
from normkit.spec import Norm

_BATCH = Norm("batch")


class BatchNormForward(_BatchNorm):
    """The forward pass that all batch norms share."""

    _batch_norm = staticmethod(F.batch_norm_of_layer)  # SyncBatchNorm has another

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each channel over the batch; in training, move the running statistics."""
        return self._forward(input, _BATCH)

    def _forward(self, input: Tensor, norm: Norm, residual: Tensor | None = None) -> Tensor:
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        weight, bias, mean, var, tracked = held.state(self)
        batches = tracked if self.training and self.track_running_stats else None
        if batches is not None and self.momentum is None:  # a cumulative average: each batch has the same weight
            is_number = not (torch.compiler.is_compiling() or batches.is_meta)
            momentum = 1.0 / ((float(batches) if is_number else batches.double()) + 1.0)
        use_input_stats = self.training or (mean is None and var is None)
        if self.training and not self.track_running_stats:
            mean = var = None
        statistics = mean, var, weight, bias, use_input_stats, momentum, self.eps, batches
        return self._batch_norm(input, *statistics, norm, residual)


class BatchNorm1d(BatchNormForward, nn.BatchNorm1d):
    r"""Normalize each channel over the batch; a drop-in for torch.nn.BatchNorm1d.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the batch, and the length where there is one.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance, inside the square root.
        momentum: The weight of the new batch in the running statistics; None: the average of all batches.
        affine: Whether there are a weight and a bias.
        track_running_stats: False: batch statistics are used in evaluation too.
        bias: Whether an affine layer has a bias.
    Shape:
        input, result: (N, C) or (N, C, L);  weight, bias, running_mean, running_var: (C,)
    Raises:
        ValueError: another number of axes; one value per channel in training.
    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """


class BatchNorm2d(BatchNormForward, nn.BatchNorm2d):
    """Normalize each channel over the batch, rows and columns; a drop-in for torch.nn.BatchNorm2d.

    Arguments and formula are those of :class:`BatchNorm1d`.

    Shape:
        input, result: (N, C, H, W), contiguous or channels last;  weight, bias, running_mean, running_var: (C,)
    """


class BatchNorm3d(BatchNormForward, nn.BatchNorm3d):
    """Normalize each channel over the batch, depth, rows and columns; a drop-in for torch.nn.BatchNorm3d.

    Arguments and formula are those of :class:`BatchNorm1d`.

    Shape:
        input, result: (N, C, D, H, W), contiguous or channels last;  weight, bias, running_mean, running_var: (C,)
    """


class LazyBatchNorm1d(BatchNormForward, nn.LazyBatchNorm1d):
    """A :class:`BatchNorm1d` that takes its number of channels from the first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(BatchNormForward, nn.LazyBatchNorm2d):
    """A :class:`BatchNorm2d` that takes its number of channels from the first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(BatchNormForward, nn.LazyBatchNorm3d):
    """A :class:`BatchNorm3d` that takes its number of channels from the first input."""

    cls_to_become = BatchNorm3d
