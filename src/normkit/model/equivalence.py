"""Whether two forward passes are equivalent: same result, gradients and buffers for the same input.

Tolerances are relative to the largest value of what is compared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Outcome", "difference", "nonfinite_difference", "run"]


class _Tolerance(NamedTuple):
    """Largest relative error of a result; and of gradients and buffers, whose sums run in another order."""

    result: float
    sums: float


_TOLERANCES = {torch.float64: _Tolerance(1e-6, 1e-5), torch.float32: _Tolerance(1e-5, 1e-4)}
_HALF_TOLERANCE = _Tolerance(1e-2, 3e-2)

# In a half-precision dtype a result differs where the same value in float32 lay near the middle between two neighbours,
# which is rare. Rounding at another place than the original changes a quarter of all elements.
_MAY_DIFFER = 0.02


class Outcome(NamedTuple):
    """What one forward and backward pass gave."""

    result: Any  # a Tensor, unless somebody else's code returns something else
    gradients: tuple[Tensor | None, ...]
    buffers: tuple[Tensor, ...]
    keeps_state: bool  # whether the forward pass left something on the module


def run(module: nn.Module, forward: Callable[[Tensor], Any], x: Tensor) -> Outcome:
    """Run a forward pass of a module, and the backward pass to its input and parameters."""
    before = dict(vars(module))
    y = forward(x)
    keeps_state = any(value is not before.get(name) for name, value in vars(module).items())
    inputs = [x, *module.parameters()]
    gradients: tuple[Tensor | None, ...] = (None,) * len(inputs)
    if isinstance(y, Tensor) and y.requires_grad:
        dy = torch.empty_like(y).normal_(generator=torch.Generator(y.device).manual_seed(1))
        gradients = torch.autograd.grad(y, inputs, dy, allow_unused=True)
    return Outcome(y, gradients, tuple(module.buffers()), keeps_state)


def difference(got: Outcome, expected: Outcome) -> str | None:
    """Say in words what differs from the expected outcome; None if nothing does."""
    if expected.keeps_state:
        return "its forward keeps something on the module"
    if not (isinstance(got.result, Tensor) and isinstance(expected.result, Tensor)):
        return "the result has another type or shape"
    if (got.result.dtype, got.result.shape) != (expected.result.dtype, expected.result.shape):
        return "the result has another type or shape"
    if got.result.stride() != expected.result.stride():
        return "the result lies in another memory layout"
    return (
        _relative_error(got.result, expected.result, _tolerance(expected.result).result)
        or _rounded_elsewhere(got.result, expected.result)
        or _gradients_differ(got.gradients, expected.gradients)
        or _buffers_differ(got.buffers, expected.buffers)
    )


def nonfinite_difference(got: Outcome, expected: Outcome) -> str | None:
    """Say whether results differ that NaN and infinity are part of; None if they do not."""
    same = torch.allclose(got.result, expected.result, equal_nan=True)
    return None if same else "NaN or infinity become something else"


def _gradients_differ(got: tuple[Tensor | None, ...], expected: tuple[Tensor | None, ...]) -> str | None:
    for mine, theirs in zip(got, expected, strict=True):
        if mine is None or theirs is None or mine.dtype != theirs.dtype:
            return "a gradient is missing or of another type"
        why = _relative_error(mine, theirs, _tolerance(theirs).sums)
        if why is not None:
            return f"a gradient differs: {why}"
    return None


def _buffers_differ(got: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> str | None:
    for mine, theirs in zip(got, expected, strict=True):
        why = _relative_error(mine, theirs, _tolerance(theirs).sums)
        if why is not None:
            return f"a buffer differs: {why}"
    return None


def _tolerance(expected: Tensor) -> _Tolerance:
    return _TOLERANCES.get(expected.dtype, _HALF_TOLERANCE)


def _relative_error(got: Tensor, expected: Tensor, tolerance: float) -> str | None:
    got, expected = got.detach().double(), expected.detach().double()
    scale = expected.abs().max().clamp(min=1e-30)
    error = float((got - expected).abs().max() / scale)
    return None if error <= tolerance else f"relative error {error:.1e}, allowed {tolerance:.0e}"


def _rounded_elsewhere(got: Tensor, expected: Tensor) -> str | None:
    if expected.dtype in _TOLERANCES:
        return None
    changed = float((got != expected).double().mean())
    return f"{changed:.0%} of the numbers are rounded in another place" if changed > _MAY_DIFFER else None
