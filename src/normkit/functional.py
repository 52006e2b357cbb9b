"""The normalizations as functions, with the signatures of torch.nn.functional. Tensors or NumPy arrays.

Tensors in, tensor out; NumPy arrays in, NumPy array out, of the same dtype. Running statistics are updated in place,
in arrays too.
"""

import inspect
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, Final, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.overrides import handle_torch_function

from normkit.backends import Call, normalize
from normkit.backends.call import group_spec, layer_spec
from normkit.backends.checks import running_or_none
from normkit.backends.dtypes import machine_eps
from normkit.backends.masked import normalize_masked
from normkit.backends.masks import read_mask
from normkit.spec import Norm

__all__ = ["batch_norm", "channel_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]

ArrayT = TypeVar("ArrayT", Tensor, NDArray[Any])
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_BATCH: Final = Norm("batch")
_INSTANCE: Final = Norm("instance")
_CHANNEL: Final = Norm("channel")
_ARRAYS: Final = ("input", "running_mean", "running_var", "weight", "bias", "mask")


def _accepts_arrays(*updated: str) -> Callable[[FunctionT], FunctionT]:
    """Let a function of tensors take NumPy arrays too; the `updated` ones are changed in place."""

    def decorate(function: FunctionT) -> FunctionT:
        signature = inspect.signature(function)

        @wraps(function)
        def call(input: Any, *args: Any, **kwargs: Any) -> Any:
            if isinstance(input, Tensor):
                return function(input, *args, **kwargs)
            if hasattr(input, "__torch_function__"):  # such as a Proxy of torch.fx
                return handle_torch_function(call, (input,), input, *args, **kwargs)
            arguments = signature.bind(input, *args, **kwargs).arguments
            return _on_arrays(function, arguments, updated)

        return cast("FunctionT", call)

    return decorate


@_accepts_arrays("running_mean", "running_var")
def batch_norm(
    input: ArrayT,
    running_mean: ArrayT | None,
    running_var: ArrayT | None,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    *,
    mask: ArrayT | None = None,
) -> ArrayT:
    r"""Normalize each channel over the batch.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the batch and all spatial axes. In training by the statistics of the batch (and the running ones, if
    given, are updated by them: the mean, and the unbiased variance); otherwise by the running statistics.

    Args:
        momentum: The weight of the new batch in the running statistics.
        mask: Which positions count: bool (True: it counts), or non-negative weights. The others are padding: they have
            no part in any statistic, become 0 and get the gradient 0.
    Shape:
        input, result: (N, C, *);  running_mean, running_var, weight, bias: (C,);  mask: (N, *), (N, 1, *), or as input
    Raises:
        ValueError: one value per channel, or one of the two running statistics, in training; eps that is not positive.
        RuntimeError: a shape that does not fit; no running statistics in evaluation.
    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """
    mean, var = cast("tuple[Any, Any]", (running_mean, running_var))
    running = running_or_none("batch_norm", mean, var, momentum, use_input_stats=training)
    result: ArrayT = _normalize(input, _BATCH, weight, bias, eps, running, training, mask=mask)
    return result


@_accepts_arrays("running_mean", "running_var")
def instance_norm(
    input: ArrayT,
    running_mean: ArrayT | None = None,
    running_var: ArrayT | None = None,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    mask: ArrayT | None = None,
) -> ArrayT:
    r"""Normalize each channel of each sample.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: all spatial axes. Running statistics, if given, are updated by the average over the samples.

    Args:
        use_input_stats: False: normalize by the running statistics.
        momentum: The weight of the new batch in the running statistics.
        mask: Which positions count: bool (True: it counts), or non-negative weights. The others are padding: they have
            no part in any statistic, become 0 and get the gradient 0.
    Shape:
        input, result: (N, C, *);  running_mean, running_var, weight, bias: (C,);  mask: (N, *), (N, 1, *), or as input
    Raises:
        ValueError: one spatial value per channel, or one of the two running statistics, with the input's own.
        RuntimeError: a shape that does not fit; no running statistics where they are to be used.
    Reference:
        Ulyanov, Vedaldi & Lempitsky 2016, arXiv:1607.08022.
    """
    mean, var = cast("tuple[Any, Any]", (running_mean, running_var))
    running = running_or_none("instance_norm", mean, var, momentum, use_input_stats=use_input_stats)
    result: ArrayT = _normalize(input, _INSTANCE, weight, bias, eps, running, use_input_stats, mask=mask)
    return result


@_accepts_arrays()
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
        TypeError: normalized_shape is no sequence of integers.
    Reference:
        Ba, Kiros & Hinton 2016, arXiv:1607.06450.
    """
    result: ArrayT = _normalize(input, layer_spec(normalized_shape), weight, bias, eps)
    return result


@_accepts_arrays()
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
        eps: None: the machine epsilon of the compute dtype.
    Shape:
        input, result: (*, *normalized_shape);  weight: normalized_shape
    Raises:
        RuntimeError: a shape that does not fit.
        TypeError: normalized_shape is no sequence of integers.
    Reference:
        Zhang & Sennrich 2019, arXiv:1910.07467.
    """
    dtype: Any = input.dtype
    norm = layer_spec(normalized_shape, subtract_mean=False)
    result: ArrayT = _normalize(input, norm, weight, None, machine_eps(dtype) if eps is None else eps)
    return result


@_accepts_arrays()
def group_norm(
    input: ArrayT,
    num_groups: int,
    weight: ArrayT | None = None,
    bias: ArrayT | None = None,
    eps: float = 1e-5,
    *,
    mask: ArrayT | None = None,
) -> ArrayT:
    r"""Normalize each group of channels of each sample.

    .. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

    Reduces over: the channels of a group and all spatial axes.

    Args:
        num_groups: Number of groups; must divide the channels.
        mask: Which positions count, as in :func:`batch_norm`.
    Shape:
        input, result: (N, C, *);  weight, bias: (C,);  mask: (N, *), (N, 1, *), or as input
    Raises:
        RuntimeError: a shape that does not fit, or channels that are not divisible by num_groups.
        ValueError: one value per group.
        TypeError: num_groups is no integer.
    Reference:
        Wu & He 2018, arXiv:1803.08494, Eq. 1.
    """
    result: ArrayT = _normalize(input, group_spec(num_groups), weight, bias, eps, mask=mask)
    return result


@_accepts_arrays()
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
    result: ArrayT = _normalize(input, _CHANNEL, weight, bias, eps)
    return result


def _normalize(*call: Any, mask: Any = None) -> Any:
    """Normalize tensors, the parts of a Call: by now nothing is an array."""
    if mask is None:
        return normalize(Call(*call))
    return normalize_masked(Call(*call), read_mask(call[0], mask))


def _on_arrays(function: Callable[..., Tensor], arguments: dict[str, Any], updated: tuple[str, ...]) -> Any:
    """Call a function of tensors with NumPy arrays; the `updated` ones are changed in place."""
    tensors = dict(arguments)
    for key in _ARRAYS:
        if arguments.get(key) is not None:
            _check_array(function, key, arguments[key], updated)
            tensors[key] = _tensor(function.__name__, key, arguments[key])
    with torch.no_grad():
        result = function(**tensors)
    for key in updated:
        if arguments.get(key) is not None and not np.may_share_memory(arguments[key], tensors[key].numpy()):
            arguments[key][...] = tensors[key].numpy()
    return result.numpy()


def _check_array(function: Callable[..., Tensor], key: str, array: Any, updated: tuple[str, ...]) -> None:
    """Raise where an argument is no array, or one that would lose something."""
    name = function.__name__
    if not isinstance(array, np.ndarray):
        got = type(array).__name__
        if key == "input":
            raise TypeError(f"{name} expected a torch.Tensor or a numpy.ndarray; got {got}: numpy.asarray(x) makes one")
        if isinstance(array, Tensor):
            raise TypeError(f"{name} got a numpy.ndarray as input and a torch.Tensor as {key}: use one kind")
        raise TypeError(f"{name} expected {key} to be a numpy.ndarray, as the input is; got {got}: make it one")
    if isinstance(array, np.ma.MaskedArray):
        instead = f"{key}.filled(value), or a plain array"
        if key == "input" and "mask" in inspect.signature(function).parameters:
            instead = "input.data, and what is valid as mask, such as ~numpy.ma.getmaskarray(input)[:, 0]"
        raise TypeError(f"{name} got a numpy.ma.MaskedArray as {key}, and would lose its mask: give {instead}")
    if key in updated and not array.flags.writeable:
        raise ValueError(f"{name} updates {key} in place, but the array given is read-only")


def _tensor(function: str, key: str, array: NDArray[Any]) -> Tensor:
    """Return an array as a tensor, in the array's own memory where torch can share it."""
    native = array.dtype.newbyteorder("=")
    if key == "mask":  # of any dtype, small, and perhaps read-only
        return torch.as_tensor(np.array(array, native))
    if native not in (np.float64, np.float32, np.float16):
        raise TypeError(f"{function} expected {key} of dtype float64, float32 or float16; got {array.dtype}")
    shareable = (
        array.dtype.isnative
        and array.flags.writeable
        and array.flags.aligned
        and all(stride >= 0 and stride % array.itemsize == 0 for stride in array.strides)  # not so in a packed record
    )
    return torch.from_numpy(array if shareable else np.array(array, native, order="C"))
