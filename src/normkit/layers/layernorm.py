"""LayerNorm over the last axes, and LayerNorm2d over the channels."""

import torch
from torch import Tensor, nn

from normkit.backends import Call, normalize
from normkit.backends.call import layer_spec
from normkit.layers.fast_attributes import get_affine
from normkit.layers.tracing import is_no_tensor, record, refuse_script
from normkit.spec import Norm, ShapeError

_CHANNEL = Norm("channel")


class LayerNorm(nn.LayerNorm):
    r"""Normalize over the last axes; a drop-in for torch.nn.LayerNorm.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the axes of normalized_shape, for every position of the others.

    Args:
        normalized_shape: Sizes of the last axes, or the size of the last one.
        eps: Added to the variance, inside the square root.
        elementwise_affine: Whether there are a weight and a bias.
        bias: Whether an affine layer has a bias.
    Shape:
        input, result: (*, *normalized_shape);  weight, bias: normalized_shape
    Raises:
        RuntimeError: the last axes of the input have other sizes.
    Reference:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    """

    __prepare_scriptable__ = refuse_script

    def forward(self, input: Tensor) -> Tensor:
        """Normalize over the last axes."""
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, LayerNorm.forward, input)
        weight, bias = get_affine(self)
        return normalize(Call(input, layer_spec(self.normalized_shape), weight, bias, self.eps))


class LayerNorm2d(nn.LayerNorm):
    r"""Normalize over the channels of (N, C, H, W), at each position, without permuting them to the end.

    The same numbers as permute, LayerNorm, permute, as ConvNeXt uses it; weight and bias are those of
    ``torch.nn.LayerNorm(num_channels)``, so checkpoints fit.

    Args:
        normalized_shape: Number of channels C.
        eps: Added to the variance, inside the square root.
        elementwise_affine: Whether there are a weight and a bias.
        bias: Whether an affine layer has a bias.
    Shape:
        input, result: (N, C, H, W) (any number of axes after C);  weight, bias: (C,). A result of four or five axes
        lies in channels-last memory, as that of permute, LayerNorm, permute does.
    Raises:
        ValueError: normalized_shape is not one number.
        RuntimeError: the input has another number of channels.
    Reference:
        Liu et al. 2022, arXiv:2201.03545, section 2.6.
    """

    __prepare_scriptable__ = refuse_script

    def __init__(
        self,
        normalized_shape: int | list[int] | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(normalized_shape, eps, elementwise_affine, bias, device, dtype)
        if len(self.normalized_shape) != 1:
            raise ValueError(
                f"LayerNorm2d normalizes over the channels alone: expected their number; got {normalized_shape}"
            )

    def forward(self, input: Tensor) -> Tensor:
        """Normalize over the channels."""
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, LayerNorm2d.forward, input)
        shape, (channels,) = input.shape, self.normalized_shape
        if len(shape) < 2 or shape[1] != channels:
            raise ShapeError(f"LayerNorm2d expected an input of shape (N, {channels}, *); got {tuple(shape)}")
        weight, bias = get_affine(self)
        return normalize(Call(input, _CHANNEL, weight, bias, self.eps))
