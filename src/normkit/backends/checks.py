"""What a call must be, before any work is done: the errors that say so."""

from collections.abc import Callable
from math import prod

import torch
from torch import Tensor

from normkit.backends.call import Call, cached_outside_compile
from normkit.backends.dtypes import HALF_DTYPES, parameter_fits
from normkit.spec import Norm, ShapeError
from normkit.statistics import Running


@cached_outside_compile
def _affine_shape(norm: Norm, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of weight and bias; raise where the input's shape does not fit the norm."""
    norm.axes(shape)
    return norm.affine_shape(shape)


def check(call: Call) -> None:
    """Raise where a call cannot be meant."""
    check_numbers(call)
    count_check = _COUNT_CHECKS.get(call.norm.kind)
    if count_check is not None and isinstance(call.x, Tensor):
        count_check(call)
    check_tensors(call)


def check_numbers(call: Call) -> None:
    """Raise where an argument is no number."""
    momentum = 0.0 if call.running is None else call.running.momentum
    if type(call.eps) is float and type(momentum) is float:
        return
    for label, number in (("eps", call.eps), ("momentum", momentum)):
        # a symbol of a compiled graph passes for a float, but has no attributes to ask for
        if not (isinstance(number, float) or hasattr(number, "__float__")):
            raise TypeError(f"{call.norm.name}_norm expected {label} to be a number; got {number!r}")


def check_batch(call: Call) -> None:
    """Raise where the statistics of a batch norm would be taken from one element, or eps is out of range.

    torch's Python function checks this, and its operation does not; so it is for instance and group norm. The operation
    takes a weight or bias of any shape with as many elements as there are channels.
    """
    for parameter in (call.weight, call.bias):
        if parameter is not None and getattr(parameter, "ndim", 1) != 1:
            check_tensors(call)
    if call.use_input_stats:
        shape = call.x.shape
        if len(shape) > 1 and shape[0] == 1 and prod(shape[2:]) == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {tuple(shape)}; "
                "use a larger batch, or .eval() to normalize by the running statistics"
            )
        check_training_eps(call)
    elif call.eps < 0.0:
        raise ValueError(f"batch_norm eps must be non-negative, but got {call.eps}")


def check_training_eps(call: Call) -> None:
    """Raise where a batch norm in training has an eps that is out of range."""
    if call.eps <= 0.0:
        raise ValueError(f"batch_norm eps must be positive during training, but got {call.eps}")


def check_floating_point(call: Call) -> None:
    """Raise where the input holds no floating-point numbers, with torch's type of error."""
    if not call.x.is_floating_point():
        raise NotImplementedError(
            f"{call.norm.name}_norm expected an input of a floating-point type; got {call.x.dtype}: convert it"
        )


def check_parameters(call: Call) -> None:
    """Raise where dtype or device of weight and bias do not go with the input: as torch's operation does, but early."""
    for label, parameter in (("weight", call.weight), ("bias", call.bias)):
        if parameter is not None:
            _check_dtype(call, label, parameter)
            _check_device(call, label, parameter)


def check_instance(call: Call) -> None:
    """Raise where the statistics of an instance norm would be taken from one element."""
    shape = call.x.shape
    if call.use_input_stats and prod(shape[2:]) == 1:
        raise ValueError(
            f"Expected more than 1 spatial element when training, got input size {tuple(shape)}; "
            "instance norm takes its statistics over the spatial axes"
        )


def check_group(call: Call) -> None:
    """Raise where the statistics of a group norm would be taken from one element."""
    shape, groups = call.x.shape, call.norm.num_groups
    if call.x.numel() == groups and len(shape) > 1:
        check_tensors(call)
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {tuple(shape)} for {groups} groups"
        )


_COUNT_CHECKS: dict[str, Callable[[Call], None]] = {
    "batch": check_batch,
    "instance": check_instance,
    "group": check_group,
}


def check_tensors(call: Call) -> None:
    """Raise where shapes, dtypes or devices do not fit each other."""
    x, norm = call.x, call.norm
    if not isinstance(x, Tensor):
        raise TypeError(f"{norm.name}_norm expected a torch.Tensor; got {type(x).__name__}")
    if x.is_quantized:
        raise NotImplementedError(
            f"{norm.name}_norm expected an input of a floating-point type; got {x.dtype}. Quantized layers are "
            "torch's: call normkit.restore(model) before torch.ao prepares it, or build it with torch.nn's norms"
        )
    expected = _affine_shape(norm, x.shape)
    for label, parameter in (("weight", call.weight), ("bias", call.bias)):
        if parameter is not None:
            _require_tensor(norm, label, parameter)
        if parameter is not None and parameter.shape != expected:
            got = tuple(parameter.shape)
            channels = f", or an input of {got[0]} channels" if norm.affine_is_per_channel and len(got) == 1 else ""
            raise ShapeError(
                f"{norm.name}_norm expected {label} of shape {expected} for an input of shape {tuple(x.shape)}"
                f"{channels}; got {label} of shape {got}"
            )
    if call.running is not None:
        _check_running(call, call.running)


def _require_tensor(norm: Norm, label: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(
            f"{norm.name}_norm expected {label} to be a torch.Tensor, as the input is; got {type(value).__name__}: "
            "torch.as_tensor makes one"
        )


def _check_running(call: Call, running: Running) -> None:
    name, x = f"{call.norm.name}_norm", call.x
    channels = x.shape[1:2]
    for label, statistic in (("running_mean", running.mean), ("running_var", running.var)):
        _require_tensor(call.norm, label, statistic)
        if statistic.shape != channels:
            raise ShapeError(
                f"{name} expected {label} of shape {tuple(channels)} for an input of shape {tuple(x.shape)}; "
                f"got {label} of shape {tuple(statistic.shape)}"
            )
        if not call.norm.is_per_sample:  # torch's instance norm takes other dtypes
            _check_dtype(call, label, statistic)
        _check_device(call, label, statistic)
        if statistic.requires_grad and torch.is_grad_enabled():
            raise RuntimeError(
                f"{name} expected {label} without a gradient of its own, as torch does; got one that requires grad: "
                "detach it"
            )


def _check_dtype(call: Call, label: str, tensor: Tensor) -> None:
    x = call.x
    if not parameter_fits(tensor.dtype, x.dtype):
        check_floating_point(call)
        raise RuntimeError(
            f"{call.norm.name}_norm expected {label} of the type of the input, {x.dtype}"
            f"{' or float32' * (x.dtype in HALF_DTYPES)}; got {tensor.dtype}: convert the layer or the input"
        )


def _check_device(call: Call, label: str, tensor: Tensor) -> None:
    x = call.x
    if tensor.device != x.device:
        raise RuntimeError(
            f"{call.norm.name}_norm expected {label} on {x.device}, where the input is; it is on {tensor.device}: "
            "move the layer or the input"
        )


def no_running(name: str, mean: Tensor | None, var: Tensor | None, *, use_input_stats: bool) -> None:
    """Raise where there is one of the two running statistics, or none in evaluation, with torch's types of errors."""
    if not use_input_stats or mean is not var:
        error = ValueError if use_input_stats else RuntimeError
        raise error(
            f"{name} expected running_mean and running_var{'' if use_input_stats else ' in evaluation'}; got "
            f"{'neither' if mean is var else 'only one of the two'}"
        )


def running_or_none(
    name: str, mean: Tensor | None, var: Tensor | None, momentum: float | Tensor, *, use_input_stats: bool
) -> Running | None:
    """Return running statistics as one value, if there are any; raise as :func:`no_running` does."""
    if mean is None or var is None:
        no_running(name, mean, var, use_input_stats=use_input_stats)
        return None
    return Running(mean, var, momentum)
