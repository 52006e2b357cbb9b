"""InstanceNorm1d, 2d and 3d, and the classes that learn their number of channels from the first input."""

from collections.abc import Sequence

from torch import Tensor, nn

from normkit.backends import Call, normalize
from normkit.backends.checks import running_or_none
from normkit.backends.masked import normalize_masked
from normkit.backends.masks import read_mask
from normkit.backends.torch_internals import InstanceNormBase
from normkit.layers.fast_attributes import get_state
from normkit.layers.tracing import is_no_tensor, record, refuse_script
from normkit.spec import Norm, ShapeError

_INSTANCE = Norm("instance")


class InstanceNormForward(InstanceNormBase):
    """The forward pass that all instance norms share.

    torch's forward checks the input and calls this, for unbatched inputs too.
    """

    __prepare_scriptable__ = refuse_script

    def forward(
        self, input: Tensor, *, mask: Tensor | None = None, lengths: Tensor | Sequence[int] | None = None
    ) -> Tensor:
        """Normalize each channel of each sample.

        Args:
            input: (N, C, *), or (C, *) without a mask.
            mask: Which positions count (bool), or how much (weights); of shape (N, *), (N, 1, *) or that of the input.
            lengths: How many positions of each sample count, of an input (N, C, L).
        """
        if type(input) is not Tensor and is_no_tensor(input):
            return record(self, InstanceNormForward.forward, input, mask=mask, lengths=lengths)
        if mask is None and lengths is None:
            result: Tensor = super().forward(input)
            return result
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if input.dim() == self._get_no_batch_dim():  # type: ignore[no-untyped-call]
            raise ShapeError(f"a mask goes with a batch (N, C, *); got {tuple(input.shape)}: use input.unsqueeze(0)")
        return normalize_masked(self._call(input), read_mask(input, mask, lengths))

    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        return normalize(self._call(input))

    def _call(self, input: Tensor) -> Call:
        """Return what this layer computes of a batch."""
        weight, bias, mean, var, _ = get_state(self)
        use_input_stats = self.training or not self.track_running_stats
        momentum = self.momentum if self.momentum is not None else 0.0
        running = running_or_none("instance_norm", mean, var, momentum, use_input_stats=use_input_stats)
        return Call(input, _INSTANCE, weight, bias, self.eps, running, use_input_stats)


class LazyInstanceNormForward(InstanceNormForward):
    """What the lazy instance norms share: the first input may come with a mask."""

    def initialize_parameters(self, input: Tensor, **_masks: object) -> None:
        """Take the number of channels from an input."""
        if type(input) is not Tensor and is_no_tensor(input):
            record(self, type(self).forward, input)  # raises: this runs in a hook, which a trace would lose
        super().initialize_parameters(input)  # type: ignore[misc]


class InstanceNorm1d(InstanceNormForward, nn.InstanceNorm1d):
    r"""Normalize each channel of each sample; a drop-in for torch.nn.InstanceNorm1d.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the length. ``layer(x, mask=mask)`` and ``layer(x, lengths=lengths)`` leave padding out: it becomes 0.

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


class LazyInstanceNorm1d(LazyInstanceNormForward, nn.LazyInstanceNorm1d):
    """An :class:`InstanceNorm1d` that takes its number of channels from the first input."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(LazyInstanceNormForward, nn.LazyInstanceNorm2d):
    """An :class:`InstanceNorm2d` that takes its number of channels from the first input."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(LazyInstanceNormForward, nn.LazyInstanceNorm3d):
    """An :class:`InstanceNorm3d` that takes its number of channels from the first input."""

    cls_to_become = InstanceNorm3d
