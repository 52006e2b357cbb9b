"""GroupNorm."""

from torch import Tensor, nn

from normkit.backends import Call, normalize
from normkit.layers.fast_attributes import get_affine
from normkit.spec import Norm


class GroupNorm(nn.GroupNorm):
    r"""Normalize each group of channels of each sample; a drop-in for torch.nn.GroupNorm.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the channels of a group and all spatial axes.

    Args:
        num_groups: Number of groups; must divide the channels.
        num_channels: Number of channels C.
        eps: Added to the variance, inside the square root.
        affine: Whether there are a weight and a bias.
        bias: Whether an affine layer has a bias.
    Shape:
        input, result: (N, C, *), in its own memory format;  weight, bias: (C,)
    Raises:
        ValueError: the channels are not divisible by num_groups.
    Reference:
        Wu & He 2018, arXiv:1803.08494, Eq. 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalize each group of channels of each sample."""
        weight, bias = get_affine(self)
        return normalize(Call(input, Norm("group", num_groups=self.num_groups), weight, bias, self.eps))
