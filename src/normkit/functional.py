"""The normalizations as functions, with the signatures of torch.nn.functional. Tensors or NumPy arrays.

Tensors in, tensor out; NumPy arrays in, NumPy array out, of the same dtype. Running statistics are updated in place,
in arrays too.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from math import prod
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from normkit.backends import aten, first_look, normalize
from normkit.backends.crossover import LEAST
from normkit.backends.eager import HALF, complete
from normkit.spec import Norm, ShapeError
from normkit.statistics import Running

__all__ = ["batch_norm", "channel_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]

ArrayT = TypeVar("ArrayT", Tensor, NDArray[Any])

P = ParamSpec("P")
R = TypeVar("R")


def _remember(function: Callable[P, R]) -> Callable[P, R]:
    """Cache a function of shapes, except in a graph that is compiled, whose sizes may be symbols."""
    cached: Callable[P, R] = lru_cache(maxsize=1024)(function)  # type: ignore[assignment]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (function if torch.compiler.is_compiling() else cached)(*args, **kwargs)

    return call


@_remember
def _affine_shape(norm: Norm, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of weight and bias; an error where the input's shape does not fit the norm."""
    norm.axes(shape)
    return norm.affine_shape(shape)


@_remember
def _layer(normalized_shape: tuple[int, ...], centred: bool) -> Norm:
    return Norm("layer", centred, normalized_shape=normalized_shape)


_BATCH = Norm("batch")
_INSTANCE = Norm("instance")
_CHANNEL = Norm("channel")


def batch_norm(
    input: ArrayT,
    running_mean: ArrayT | None,
    running_var: ArrayT | None,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
) -> ArrayT:
    r"""Normalize each channel over the batch.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the batch and all spatial axes. In training by the statistics of the batch (and the running ones, if
    given, move towards them: the mean, and the unbiased variance); otherwise by the running statistics.

    Args:
        momentum: The weight of the new batch in the running statistics.
    Shape:
        input, result: (N, C, *);  running_mean, running_var, weight, bias: (C,)
    Raises:
        ValueError: one value per channel in training; eps that is not positive.
        RuntimeError: a shape that does not fit; no running statistics in evaluation.
    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """
    if not isinstance(input, Tensor):
        result: ArrayT = _on_arrays(batch_norm, locals(), ("running_mean", "running_var"))
        return result
    return batch_norm_of_layer(input, running_mean, running_var, weight, bias, training, momentum, eps, None, _BATCH)


def batch_norm_of_layer(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    momentum: float | Tensor,
    eps: float,
    batches: Tensor | None,
    norm: Norm,
    residual: Tensor | None = None,
) -> Tensor:
    """:func:`batch_norm` of a tensor; counts ``batches``, if there are any, up by one.

    The norm may have bounds, for the sum of result and residual if there is one.
    """
    shape = input.shape
    if training:
        if len(shape) > 1 and shape[0] == 1 and prod(shape[2:]) == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {tuple(shape)}; "
                "use a larger batch, or .eval() to normalize by the running statistics"
            )
        if eps <= 0.0:
            raise ValueError(f"batch_norm eps must be positive during training, but got {eps}")
    elif eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {eps}")
    look = first_look(input, LEAST.batch, norm, training)
    if look == "aten" and not isinstance(momentum, Tensor):
        try:
            y = aten.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps, batches)
        except RuntimeError:  # the checks below say why, or the next call says it again
            pass
        else:
            return complete(y, norm, residual)
    _check("batch_norm", input, norm, weight, bias)
    running = _running("batch_norm", input, running_mean, running_var, momentum, training, batches)
    return normalize(input, norm, weight, bias, eps, running, training, look, residual)


def instance_norm(
    input: ArrayT,
    running_mean: ArrayT | None = None,
    running_var: ArrayT | None = None,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> ArrayT:
    r"""Normalize each channel of each sample.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: all spatial axes. Running statistics, if given, move towards the average over the samples.

    Args:
        use_input_stats: False: normalize by the running statistics.
        momentum: The weight of the new batch in the running statistics.
    Shape:
        input, result: (N, C, *);  running_mean, running_var, weight, bias: (C,)
    Raises:
        ValueError: one spatial value per channel, with the input's own statistics.
        RuntimeError: a shape that does not fit; no running statistics where they are to be used.
    Reference:
        Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022.
    """
    if not isinstance(input, Tensor):
        result: ArrayT = _on_arrays(instance_norm, locals(), ("running_mean", "running_var"))
        return result
    if use_input_stats and prod(input.shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {tuple(input.shape)}; "
            "instance norm takes its statistics over the spatial axes"
        )
    look = first_look(input, LEAST.instance, _INSTANCE if running_mean is None else None)
    if look == "aten":
        return aten.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    _check("instance_norm", input, _INSTANCE, weight, bias)
    running = _running("instance_norm", input, running_mean, running_var, momentum, use_input_stats)
    return normalize(input, _INSTANCE, weight, bias, eps, running, use_input_stats, look)


def layer_norm(
    input: ArrayT,
    normalized_shape: Sequence[int],
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    eps: float = 1e-5,
) -> ArrayT:
    r"""Normalize over the last axes.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the axes of normalized_shape, for every position of the others.

    Args:
        normalized_shape: Sizes of the last axes.
    Shape:
        input, result: (*, *normalized_shape);  weight, bias: normalized_shape
    Raises:
        RuntimeError: a shape that does not fit.
    Reference:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    """
    if not isinstance(input, Tensor):
        result: ArrayT = _on_arrays(layer_norm, locals())
        return result
    least = LEAST.layer_half if input.dtype in HALF else LEAST.layer
    look = first_look(input, least)
    if look is None:
        norm = _layer(tuple(normalized_shape), True)
        look = first_look(input, least, norm)
    if look == "aten":
        return aten.layer_norm(input, normalized_shape, weight, bias, eps)
    _check("layer_norm", input, norm, weight, bias)
    return normalize(input, norm, weight, bias, eps, look=look)


def rms_norm(
    input: ArrayT,
    normalized_shape: Sequence[int],
    weight: ArrayT | None = None,
    eps: float | None = None,
) -> ArrayT:
    r"""Divide by the root of the mean square over the last axes.

    .. math:: y = x / \sqrt{\overline{x^2} + \epsilon} \cdot \gamma

    Reduces over: the axes of normalized_shape, for every position of the others. Nothing is subtracted.

    Args:
        normalized_shape: Sizes of the last axes.
        eps: None: the machine epsilon of the type that is computed in.
    Shape:
        input, result: (*, *normalized_shape);  weight: normalized_shape
    Raises:
        RuntimeError: a shape that does not fit.
    Reference:
        Zhang & Sennrich 2019, arXiv:1910.07467.
    """
    if not isinstance(input, Tensor):
        result: ArrayT = _on_arrays(rms_norm, locals())
        return result
    if first_look(input, LEAST.rms) == "aten":
        return torch.rms_norm(input, normalized_shape, weight, eps)
    norm = _layer(tuple(normalized_shape), False)
    _check("rms_norm", input, norm, weight, None)
    if eps is None:
        eps = torch.finfo(torch.float64 if input.dtype is torch.float64 else torch.float32).eps
    return normalize(input, norm, weight, None, eps, look=first_look(input, LEAST.rms, norm))


def group_norm(
    input: ArrayT,
    num_groups: int,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    eps: float = 1e-5,
) -> ArrayT:
    r"""Normalize each group of channels of each sample.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the channels of a group and all spatial axes.

    Args:
        num_groups: Number of groups; must divide the channels.
    Shape:
        input, result: (N, C, *);  weight, bias: (C,)
    Raises:
        RuntimeError: a shape that does not fit, or channels that are not divisible by num_groups.
        ValueError: one value per group.
    Reference:
        Wu & He 2018, arXiv:1803.08494, Eq. 1.
    """
    if not isinstance(input, Tensor):
        result: ArrayT = _on_arrays(group_norm, locals())
        return result
    norm = Norm("group", num_groups=num_groups)
    look = first_look(input, LEAST.group, norm) if input.dim() > 1 and num_groups > 0 else None
    if look == "aten" and input.numel() != num_groups:
        return aten.group_norm(input, num_groups, weight, bias, eps)
    _check("group_norm", input, norm, weight, bias)
    batch, channels, *spatial = input.shape
    if batch * channels // num_groups * prod(spatial) == 1:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(input.shape)} "
            f"for {num_groups} groups"
        )
    return normalize(input, norm, weight, bias, eps, look=look)


def channel_norm(
    input: ArrayT,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    eps: float = 1e-5,
) -> ArrayT:
    r"""Normalize over the channels, at each position of each sample, without permuting them to the end.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the channels alone. It is layer_norm of a channels-last input, as ConvNeXt uses it.

    Shape:
        input, result: (N, C, *);  weight, bias: (C,). A result of four or five axes lies in channels-last memory, as it
        does where layer_norm is applied between two permutations: the convolutions of ConvNeXt are faster for it.
    Raises:
        RuntimeError: a shape that does not fit.
    Reference:
        Liu et al. 2022, arXiv:2201.03545, section 2.6.
    """
    if not isinstance(input, Tensor):
        result: ArrayT = _on_arrays(channel_norm, locals())
        return result
    look = first_look(input, LEAST.channel, _CHANNEL) if input.dim() > 2 else None
    if look == "aten":
        return aten.channel_norm(input, weight, bias, eps)
    _check("channel_norm", input, _CHANNEL, weight, bias)
    return normalize(input, _CHANNEL, weight, bias, eps, look=look)


def _check(name: str, x: Tensor, norm: Norm, weight: Tensor | None, bias: Tensor | None) -> None:
    """Shapes, before any work is done."""
    expected = _affine_shape(norm, x.shape)
    if (weight is None or weight.shape == expected) and (bias is None or bias.shape == expected):
        return
    for label, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != expected:
            got = tuple(parameter.shape)
            channels = f", or an input of {got[0]} channels" if norm.kind != "layer" and len(got) == 1 else ""
            raise ShapeError(
                f"{name} expected {label} of shape {expected} for an input of shape {tuple(x.shape)}{channels}; "
                f"got {label} of shape {got}"
            )


def _running(
    name: str,
    x: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    momentum: float | Tensor,
    use_input_stats: bool,
    batches: Tensor | None = None,
) -> Running | None:
    """The running statistics, checked."""
    if mean is None or var is None:
        if not use_input_stats or mean is not var:
            raise RuntimeError(
                f"{name} expected running_mean and running_var{'' if use_input_stats else ' in evaluation'}; got "
                f"{'neither' if mean is var else 'only one of the two'}"
            )
        return None
    channels = x.shape[1:2]
    for label, statistic in (("running_mean", mean), ("running_var", var)):
        if statistic.shape != channels:
            raise ShapeError(
                f"{name} expected {label} of shape {tuple(channels)} for an input of shape {tuple(x.shape)}; "
                f"got {label} of shape {tuple(statistic.shape)}"
            )
        # torch's batch norm refuses other types, and its instance norm takes them
        if (
            name == "batch_norm"
            and statistic.dtype is not x.dtype
            and not (statistic.dtype is torch.float32 and x.dtype in HALF)
        ):
            if not x.is_floating_point():
                # torch's type of error
                raise NotImplementedError(
                    f"{name} expected an input of a floating-point type; got {x.dtype}: convert it"
                )
            raise RuntimeError(
                f"{name} expected {label} of the type of the input, {x.dtype}{' or float32' * (x.dtype in HALF)}; "
                f"got {statistic.dtype}: convert the layer or the input"
            )
        if statistic.device != x.device:
            raise RuntimeError(
                f"{name} expected {label} on {x.device}, where the input is; it is on {statistic.device}: "
                "move the layer or the input"
            )
    return Running(mean, var, momentum, batches)


def _on_arrays(function: Callable[..., Tensor], arguments: dict[str, Any], updated: tuple[str, ...] = ()) -> Any:
    """Call a function of tensors with NumPy arrays; the `updated` ones are changed in place."""
    name = function.__name__
    if not isinstance(arguments["input"], np.ndarray):
        raise TypeError(f"{name} expected a torch.Tensor or a numpy.ndarray; got {type(arguments['input']).__name__}")
    tensors = dict(arguments)
    for key, value in arguments.items():
        if isinstance(value, Tensor):
            raise TypeError(f"{name} got a numpy.ndarray as input and a torch.Tensor as {key}: use one kind")
        if isinstance(value, np.ndarray):
            if key in updated and not value.flags.writeable:
                raise ValueError(f"{name} updates {key} in place, but the array given is read-only")
            tensors[key] = _tensor(name, key, value)
    with torch.no_grad():
        result = function(**tensors)
    for key in updated:
        if arguments[key] is not None and not np.may_share_memory(arguments[key], tensors[key].numpy()):
            arguments[key][...] = tensors[key].numpy()
    return result.numpy()


def _tensor(function: str, name: str, array: NDArray[Any]) -> Tensor:
    """An array as a tensor, in the array's own memory where torch can share it."""
    native = array.dtype.newbyteorder("=")
    if native not in (np.float64, np.float32, np.float16):
        raise TypeError(f"{function} expected {name} of dtype float64, float32 or float16; got {array.dtype}")
    shareable = array.dtype.isnative and array.flags.writeable and min(array.strides, default=0) >= 0
    return torch.from_numpy(array if shareable else np.array(array, native, order="C"))
