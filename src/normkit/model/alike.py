"""Which modules are alike, so that what copies of one have shown holds for all of them."""

from collections.abc import Callable, Hashable
from typing import Any, Final, TypeVar

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

__all__ = ["likeness", "once_per_kind"]

R = TypeVar("R")

_OF_EVERY_MODULE: Final = frozenset(
    vars(nn.Module())
)  # the mode, hooks, and dictionaries that are compared by themselves
_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")


def once_per_kind(function: Callable[[nn.Module], R]) -> Callable[[nn.Module], R]:
    """Return a function of the modules of one model that is computed once for all that are alike.

    Args:
        function: Runs copies of a module with random parameters; its result does not depend on the values of the
            module's own or of its running statistics, on its mode or on hooks.
    """
    results: dict[Hashable, R] = {}

    def of_its_kind(module: nn.Module) -> R:
        kind = likeness(module)
        if kind not in results:
            results[kind] = function(module)
        return results[kind]

    return of_its_kind


def likeness(module: nn.Module) -> Hashable:
    """Return what is equal for modules of one model that compute the same, but for values that they have learnt.

    These are modules of one class whose attributes are equal plain values or the same objects, whose parameters and
    running statistics have the same shapes, dtypes and devices, and whose other buffers are the same tensors; and whose
    parts are alike. A module whose parts have parts is like itself alone. Holds as long as the modules exist.
    """
    parts = module._modules
    if any(part is not None and part._modules for part in parts.values()):
        return id(module)
    return (_own(module), *((name, None if part is None else _own(part)) for name, part in parts.items()))


def _own(module: nn.Module) -> Hashable:
    attributes = ((name, _value(one)) for name, one in vars(module).items() if name not in _OF_EVERY_MODULE)
    parameters = ((name, _form(one)) for name, one in module._parameters.items())
    buffers = ((name, _form(one) if name in _STATISTICS else id(one)) for name, one in module._buffers.items())
    return type(module), tuple(attributes), tuple(parameters), tuple(buffers)


def _form(tensor: Tensor | None) -> Hashable:
    if tensor is None:
        return None
    if is_lazy(tensor):
        return type(tensor).__name__
    return type(tensor), tensor.shape, tensor.dtype, tensor.device


def _value(one: Any) -> Hashable:
    """Return what is equal for equal plain values of one type; of anything else, which object it is."""
    if isinstance(one, bool | int | float | str | None):
        return type(one), repr(one)  # 0.0 and -0.0 are equal, and not alike
    if isinstance(one, tuple | list):
        return type(one), tuple(map(_value, one))
    return id(one)
