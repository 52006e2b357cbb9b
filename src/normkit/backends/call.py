"""One normalization as one value: what every back end takes."""

from collections.abc import Callable, Iterable
from functools import wraps
from math import inf
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit.spec import Norm, cached_by_shape, integer
from normkit.statistics import Running

RELU: Final = (0.0, inf)  # the bounds of a ReLU


class Epilogue(NamedTuple):
    """What becomes of a result before it is returned: a residual is added, then bounds hold it.

    Args:
        bounds: Lower and upper: (0, inf) is a ReLU, (0, 6) a ReLU6; None: there are none.
        residual: What is added before that, of a shape that broadcasts to that of the result; None: nothing.
    """

    bounds: tuple[float, float] | None = None
    residual: Tensor | None = None


class Call(NamedTuple):
    """One normalization.

    Args:
        x: The input.
        norm: Which axes.
        weight, bias: Of shape ``norm.affine_shape(x.shape)``, or None.
        eps: Added to the variance, inside the square root.
        running: Running statistics of shape (C,): updated, and the batch counted, if use_input_stats, else used in
            place of the input's own.
        use_input_stats: Whether to take the statistics from x.
        epilogue: What becomes of the result; None: nothing.
    """

    x: Tensor
    norm: Norm
    weight: Tensor | None = None
    bias: Tensor | None = None
    eps: float = 1e-5
    running: Running | None = None
    use_input_stats: bool = True
    epilogue: Epilogue | None = None

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Of the result."""
        return None if self.epilogue is None else self.epilogue.bounds

    @property
    def residual(self) -> Tensor | None:
        """What is added to the result."""
        return None if self.epilogue is None else self.epilogue.residual


def needs_graph(call: Call) -> bool:
    """Whether autograd records the norm, whatever its epilogue."""
    return torch.is_grad_enabled() and (
        call.x.requires_grad
        or (call.weight is not None and call.weight.requires_grad)
        or (call.bias is not None and call.bias.requires_grad)
    )


P = ParamSpec("P")
R = TypeVar("R")


def cached_outside_compile(function: Callable[P, R]) -> Callable[P, R]:
    """Cache a function of shapes, except in a graph that is compiled, whose sizes may be symbols."""
    cached = cached_by_shape(function)

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return (function if is_compiling() else cached)(*args, **kwargs)

    return call


def layer_spec(normalized_shape: Iterable[int], *, subtract_mean: bool = True) -> Norm:
    """Return the norm over the last axes, of these sizes.

    Raises:
        TypeError: they are no sequence of integers.
    """
    sizes: Any
    try:
        sizes = tuple(normalized_shape)
        for size in sizes:
            if type(size) is not int:
                sizes = tuple(map(_as_size, sizes))
                break
    except TypeError:
        raise TypeError(
            "expected normalized_shape to be a sequence of integers, such as (3,) or x.shape[-1:]; "
            f"got {normalized_shape!r}"
        ) from None
    return Norm("layer", subtract_mean, normalized_shape=sizes)


def group_spec(num_groups: int) -> Norm:
    """Return the norm over so many groups of channels.

    Raises:
        TypeError: num_groups is no integer.
    """
    return Norm("group", num_groups=integer(num_groups, "group_norm expected num_groups"))


def _as_size(number: object) -> Any:
    """Return an integer of any type as Python's, or a symbol of a traced graph as it is."""
    return number if isinstance(number, torch.SymInt) else integer(number, "expected a size")
