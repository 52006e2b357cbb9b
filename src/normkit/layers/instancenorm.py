"""InstanceNorm1d, 2d and 3d, and the classes that learn their number of channels from the first input."""

from torch import Tensor, nn

from normkit.backends import Call, normalize
from normkit.backends.checks import running_or_none
from normkit.backends.torch_internals import InstanceNormBase
from normkit.layers.fast_attributes import get_state
from normkit.spec import Norm

_INSTANCE = Norm("instance")


class InstanceNormForward(InstanceNormBase):
    """The forward pass that all instance norms share.

    torch's forward checks the input and calls this, for unbatched inputs too.
    """

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        weight, bias, mean, var, _ = get_state(self)
        use_input_stats = self.training or not self.track_running_stats
        momentum = self.momentum if self.momentum is not None else 0.0
        running = running_or_none("instance_norm", mean, var, momentum, use_input_stats=use_input_stats)
        return normalize(Call(input, _INSTANCE, weight, bias, self.eps, running, use_input_stats))


class InstanceNorm1d(InstanceNormForward, nn.InstanceNorm1d):
    r"""Normalize each channel of each sample; a drop-in for torch.nn.InstanceNorm1d.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the length.

    Args:
        num_features: Number of channels C.
        eps: Added to the variance, inside the square root.
        momentum: The weight of the new batch in the running statistics.
        affine: Whether there are a weight and a bias (off by default, as in torch).
        track_running_stats: Whether to keep running statistics, and use them in evaluation (off by default).
        bias: Whether an affine layer has a bias.
    Shape:
        input, result: (N, C, L) or (C, L);  weight, bias, running_mean, running_var: (C,)
    Raises:
        ValueError: another number of axes; one value per channel and sample.
    Reference:
        Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022.
    """


class InstanceNorm2d(InstanceNormForward, nn.InstanceNorm2d):
    """Normalize each channel of each sample over rows and columns; a drop-in for torch.nn.InstanceNorm2d.

    Arguments and formula are those of :class:`InstanceNorm1d`.

    Shape:
        input, result: (N, C, H, W) or (C, H, W);  weight, bias, running_mean, running_var: (C,)
    """


class InstanceNorm3d(InstanceNormForward, nn.InstanceNorm3d):
    """Normalize each channel of each sample over depth, rows and columns; a drop-in for torch.nn.InstanceNorm3d.

    Arguments and formula are those of :class:`InstanceNorm1d`.

    Shape:
        input, result: (N, C, D, H, W) or (C, D, H, W);  weight, bias, running_mean, running_var: (C,)
    """


class LazyInstanceNorm1d(InstanceNormForward, nn.LazyInstanceNorm1d):
    """An :class:`InstanceNorm1d` that takes its number of channels from the first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(InstanceNormForward, nn.LazyInstanceNorm2d):
    """An :class:`InstanceNorm2d` that takes its number of channels from the first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(InstanceNormForward, nn.LazyInstanceNorm3d):
    """An :class:`InstanceNorm3d` that takes its number of channels from the first input."""

    cls_to_become = InstanceNorm3d
