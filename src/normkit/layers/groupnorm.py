"""GroupNorm."""

from collections.abc import Sequence

from torch import Tensor, nn

from normkit.backends import Call, normalize
from normkit.backends.call import group_spec
from normkit.backends.masked import normalize_masked
from normkit.backends.masks import read_mask
from normkit.layers.fast_attributes import get_affine
from normkit.layers.tracing import is_no_tensor, record, refuse_script


class GroupNorm(nn.GroupNorm):
    r"""Normalize each group of channels of each sample; a drop-in for torch.nn.GroupNorm.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the channels of a group and all spatial axes. ``layer(x, mask=mask)`` and
    ``layer(x, lengths=lengths)`` leave padding out: it becomes 0.

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

    __prepare_scriptable__ = refuse_script

    def forward(
        self, input: Tensor, *, mask: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Normalize each group of channels of each sample.

        Args:
            input: (N, C, *).
            mask: Which positions count (bool), or how much (weights); of shape (N, *), (N, 1, *) or that of the input.
            lengths: How many positions of each sample count, of an input (N, C, L).
        """
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, GroupNorm.forward, input, mask=mask, lengths=lengths)
        weight, bias = get_affine(self)
        call = Call(input, group_spec(self.num_groups), weight, bias, self.eps)
        if mask is None and lengths is None:
            return normalize(call)
        return normalize_masked(call, read_mask(input, mask, lengths))
