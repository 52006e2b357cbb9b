"""RMSNorm."""

from torch import Tensor, nn

from normkit.backends import Call, normalize
from normkit.backends.call import layer_spec
from normkit.backends.dtypes import machine_eps
from normkit.layers.fast_attributes import get_weight
from normkit.layers.tracing import is_no_tensor, record, refuse_script


class RMSNorm(nn.RMSNorm):
    r"""Divide by the root of the mean square over the last axes; a drop-in for torch.nn.RMSNorm.

    .. math:: y = x / \sqrt{\overline{x^2} + \epsilon} \cdot \gamma

    Reduces over: the axes of normalized_shape, for every position of the others. Nothing is subtracted.

    Args:
        normalized_shape: Sizes of the last axes, or the size of the last one.
        eps: Added to the mean square, inside the square root; None: the machine epsilon of the compute type.
        elementwise_affine: Whether there is a weight.
    Shape:
        input, result: (*, *normalized_shape);  weight: normalized_shape
    Raises:
        RuntimeError: the last axes of the input have other sizes.
    Reference:
        Zhang & Sennrich 2019, arXiv:1910.07467.
    """

    __prepare_scriptable__ = refuse_script

    def forward(self, x: Tensor) -> Tensor:
        """Divide by the root of the mean square over the last axes."""
        if type(x) is not Tensor and is_no_tensor(x):
            return record(self, RMSNorm.forward, x)
        norm = layer_spec(self.normalized_shape, subtract_mean=False)
        return normalize(Call(x, norm, get_weight(self), None, machine_eps(x.dtype) if self.eps is None else self.eps))
