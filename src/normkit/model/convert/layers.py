"""Layers that a conversion needs and torch.nn does not have."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from normkit.layers.instancenorm import InstanceNormForward
from normkit.layers.tracing import is_no_tensor, record

RUNNING_STATE = ("running_mean", "running_var", "num_batches_tracked")
"""What a checkpoint from before the conversion holds, and the layer does not."""


class InstanceNorm(InstanceNormForward):
    """An instance norm of samples in batches, with any number of axes after the channels.

    torch's InstanceNorm1d would take what a BatchNorm1d gets from a linear layer, (N, C), for one sample (C, L).
    """

    def forward(
        self, input: Tensor, *, mask: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Normalize each channel of each sample."""
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, InstanceNorm.forward, input, mask=mask, lengths=lengths)
        if mask is not None or lengths is not None:
            return super().forward(input, mask=mask, lengths=lengths)
        self._check_input_dim(input)
        return self._apply_instance_norm(input)

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 3 or input.shape[1] != self.num_features:
            raise ValueError(f"InstanceNorm expected an input (N, {self.num_features}, *); got {tuple(input.shape)}")

    def _get_no_batch_dim(self) -> int:
        return 0

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        drop_running_state(self, state_dict, prefix)
        super()._load_from_state_dict(state_dict, prefix, *args)


class NormAct(nn.Module):
    """A norm, and what a batch norm with an activation did behind it; goes over the class of the norm."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        """Normalize, add the residual and apply the activation."""
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, NormAct.forward, input, residual)
        y = self.drop(super().forward(input))
        result: Tensor = self.act(y if residual is None else y + residual)
        return result


def drop_running_state(module: nn.Module, state_dict: dict[str, Any], prefix: str, *_: Any) -> None:
    """Take the running statistics of a layer out of a checkpoint that is loaded into it; a hook."""
    for name in RUNNING_STATE:
        state_dict.pop(prefix + name, None)
