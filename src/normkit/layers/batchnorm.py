"""BatchNorm1d, 2d and 3d, and the classes that learn their number of channels from the first input.

State, defaults, errors and repr are inherited from torch.nn, so they cannot differ from it; what is ours is the
forward pass.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from normkit.backends import Call, Epilogue, normalize
from normkit.backends.checks import no_running
from normkit.backends.masked import normalize_masked
from normkit.backends.masks import Mask, read_mask
from normkit.backends.torch_internals import BatchNormBase
from normkit.layers.fast_attributes import get_state
from normkit.layers.tracing import is_no_tensor, record, refuse_script
from normkit.spec import Norm
from normkit.statistics import Running

_BATCH = Norm("batch")


class BatchNormForward(BatchNormBase):
    """The forward pass that all batch norms share."""

    __prepare_scriptable__ = refuse_script

    def forward(
        self, input: Tensor, *, mask: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Normalize each channel over the batch; in training, update the running statistics.

        Args:
            input: (N, C, *).
            mask: Which positions count (bool), or how much (weights); of shape (N, *), (N, 1, *) or that of the input.
            lengths: How many positions of each sample count, of an input (N, C, L).
        """
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, BatchNormForward.forward, input, mask=mask, lengths=lengths)
        if mask is None and lengths is None:
            return self._normalize(input, None)
        return self._normalize_masked(self._call(input, None), read_mask(input, mask, lengths))

    def _normalize(self, input: Tensor, epilogue: Epilogue | None) -> Tensor:
        return normalize(self._call(input, epilogue))

    def _normalize_masked(self, call: Call, mask: Mask) -> Tensor:
        return normalize_masked(call, mask)

    def _call(self, input: Tensor, epilogue: Epilogue | None) -> Call:
        """Return what this layer computes of an input."""
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        weight, bias, mean, var, tracked = get_state(self)
        training = self.training
        use_input_stats = training or (mean is None and var is None)
        if mean is None or var is None or (training and not self.track_running_stats):
            if not training or self.track_running_stats:
                no_running("batch_norm", mean, var, use_input_stats=use_input_stats)
            return Call(input, _BATCH, weight, bias, self.eps, None, use_input_stats, epilogue)
        momentum: float | Tensor = 0.0 if self.momentum is None else self.momentum
        count = tracked if training else None
        if count is not None and self.momentum is None:  # a cumulative average: each batch has the same weight
            is_number = not (torch.compiler.is_compiling() or count.is_meta)
            momentum = 1.0 / ((float(count) if is_number else count.double()) + 1.0)
        running = Running(mean, var, momentum, count)
        return Call(input, _BATCH, weight, bias, self.eps, running, use_input_stats, epilogue)


class LazyBatchNormForward(BatchNormForward):
    """What the lazy batch norms share: the first input may come with a mask."""

    def initialize_parameters(self, input: Tensor, **_masks: object) -> None:
        """Take the number of channels from an input."""
        if type(input) is not Tensor and is_no_tensor(input):
            record(self, type(self).forward, input)  # raises: this runs in a hook, which a trace would lose
        super().initialize_parameters(input)  # type: ignore[misc]


class BatchNorm1d(BatchNormForward, nn.BatchNorm1d):
    r"""Normalize each channel over the batch; a drop-in for torch.nn.BatchNorm1d.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the batch, and the length where there is one. ``layer(x, mask=mask)`` and
    ``layer(x, lengths=lengths)`` leave padding out: it becomes 0.

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


class LazyBatchNorm1d(LazyBatchNormForward, nn.LazyBatchNorm1d):
    """A :class:`BatchNorm1d` that takes its number of channels from the first input."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(LazyBatchNormForward, nn.LazyBatchNorm2d):
    """A :class:`BatchNorm2d` that takes its number of channels from the first input."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(LazyBatchNormForward, nn.LazyBatchNorm3d):
    """A :class:`BatchNorm3d` that takes its number of channels from the first input."""

    cls_to_become = BatchNorm3d
