"""BatchNorm over the batches of all ranks, on the CPU (gloo) and on CUDA (NCCL)."""

from typing import Any

import torch
from torch import Tensor, distributed

from normkit.backends import Call, Epilogue, normalize
from normkit.backends.epilogue import apply_epilogue
from normkit.backends.masks import Mask
from normkit.layers.batchnorm import BatchNormForward


class SyncForward(BatchNormForward):
    """The forward pass of a batch norm whose batch is spread over ranks."""

    process_group: Any

    def _normalize(self, input: Tensor, epilogue: Epilogue | None) -> Tensor:
        call = self._call(input, epilogue)
        group = self._group()
        if group is None:
            return normalize(call)
        # brings torch's compiler, which is more than all else together
        from normkit.backends.sync_batch_norm import sync_batch_norm

        return apply_epilogue(sync_batch_norm(call, group), epilogue)

    def _normalize_masked(self, call: Call, mask: Mask) -> Tensor:
        group = self._group()
        if group is None:
            return super()._normalize_masked(call, mask)
        from normkit.backends.sync_batch_norm import sync_masked_batch_norm

        return sync_masked_batch_norm(call, mask, group)

    def _group(self) -> Any:
        """Return the process group to share statistics in; None where there is nothing to share."""
        if not self.training or not distributed.is_available() or not distributed.is_initialized():
            return None
        group = self.process_group or distributed.group.WORLD
        return group if distributed.get_world_size(group) > 1 else None


class BatchNorm(BatchNormForward):
    """A batch norm for inputs with any number of axes: what a :class:`SyncBatchNorm` is on one rank."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2D input (got {input.dim()}D input)")
        if input.shape[1] == 0:
            raise ValueError("number of input channels should be non-zero")


class SyncBatchNorm(SyncForward, BatchNorm):
    r"""Normalize each channel over the batches of all ranks; torch.nn.SyncBatchNorm, on the CPU too.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the batch and all spatial axes, on all ranks of the group. The ranks' batches may differ in size, and
    a rank's may be empty. One collective in the forward pass and one in the backward pass; without a process group, or
    in evaluation, it is a BatchNorm.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance, inside the square root.
        momentum: The weight of the new batch in the running statistics; None: the average of all batches.
        affine: Whether there are a weight and a bias.
        track_running_stats: False: batch statistics are used in evaluation too.
        process_group: The ranks that share statistics; None: all.
        bias: Whether an affine layer has a bias.
    Shape:
        input, result: (N, C, *), 2 to 5 axes;  weight, bias, running_mean, running_var: (C,)
    Raises:
        ValueError: fewer than 2 axes; one value per channel over all ranks in training.
        RuntimeError: the ranks disagree on the number of channels, or it is not num_features; a rank refuses its input;
            a rank is gone.
    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1, over ranks.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Any = None,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype)
        if not bias:  # not an argument of older classes of torch
            self.register_parameter("bias", None)
        self.process_group = process_group
