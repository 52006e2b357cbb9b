"""One table of cases and one table of tolerances, for every test of a norm."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as TF

from normkit.spec import Norm, view

# The largest error against float64, relative to the largest value. A unit in the last place is 2^-52, 2^-23, 2^-10
# and 2^-7 of a value; a result takes a handful of roundings, a sum of n numbers about sqrt(n) of the compute type's.
TOLERANCE = {
    torch.float64: 2e-13,
    torch.float32: 4e-6,
    torch.float16: 2e-3,  # computed in float32, rounded once: half a unit, 4.9e-4, and a second rounding in sums
    torch.bfloat16: 1.6e-2,  # likewise: half a unit is 3.9e-3
}
DTYPES = tuple(TOLERANCE)


def knows(layer: str, options: dict[str, object]) -> bool:
    """Whether the installed torch has a layer with all of these arguments: `bias` came late to most of them."""
    return not hasattr(nn, layer) or set(options) <= set(signature(getattr(nn, layer)).parameters)


def _unnamed(*_: object) -> Tensor:
    raise NotImplementedError("this case does not say what torch calls it")


@dataclass(frozen=True)
class Case:
    """A norm and an input shape, with what torch calls it."""

    norm: Norm
    shape: tuple[int, ...]
    torch: Callable[..., Tensor] = field(repr=False, default=_unnamed)
    bounds: tuple[float, float] | None = None

    @property
    def affine_shape(self) -> tuple[int, ...]:
        return self.norm.affine_shape(self.shape)

    def __str__(self) -> str:
        return f"{self.norm.name}{'x'.join(map(str, self.norm.normalized_shape))}-{'x'.join(map(str, self.shape))}"


def _batch(x: Tensor, w: Tensor | None, b: Tensor | None, eps: float) -> Tensor:
    return TF.batch_norm(x, None, None, w, b, True, 0.1, eps)


def _instance(x: Tensor, w: Tensor | None, b: Tensor | None, eps: float) -> Tensor:
    return TF.instance_norm(x, None, None, w, b, True, 0.1, eps)


def _channel(x: Tensor, w: Tensor | None, b: Tensor | None, eps: float) -> Tensor:
    return TF.layer_norm(x.movedim(1, -1), (x.shape[1],), w, b, eps).movedim(-1, 1)


def _group(groups: int) -> Callable[..., Tensor]:
    return lambda x, w, b, eps: TF.group_norm(x, groups, w, b, eps)


def _layer(shape: tuple[int, ...]) -> Callable[..., Tensor]:
    return lambda x, w, b, eps: TF.layer_norm(x, shape, w, b, eps)


def _rms(shape: tuple[int, ...]) -> Callable[..., Tensor]:
    return lambda x, w, b, eps: TF.rms_norm(x, shape, w, eps)


def _cases() -> Iterator[Case]:
    # odd sizes, sizes of one, sizes around a vector, several blocks and chunks, and more columns than a tile
    shapes = [(9, 5), (70, 6), (3, 6, 1), (4, 6, 7), (5, 12, 2, 2), (3, 6, 33, 7), (2, 6, 70, 65), (130, 64, 3, 3)]
    shapes += [(2, 4, 3, 5, 6), (3, 4100, 2), (1, 6, 4, 4)]
    for shape in shapes:
        channels = shape[1]
        yield Case(Norm("batch"), shape, _batch)
        yield Case(Norm("channel"), shape, _channel)
        yield Case(Norm("layer", normalized_shape=shape[-1:]), shape, _layer(shape[-1:]))
        yield Case(Norm("layer", normalized_shape=shape[1:]), shape, _layer(shape[1:]))
        yield Case(Norm("layer", subtract_mean=False, normalized_shape=shape[-1:]), shape, _rms(shape[-1:]))
        if len(shape) > 2:
            for groups in {1, 2, channels} if channels % 2 == 0 else {1, channels}:
                yield Case(Norm("group", num_groups=groups), shape, _group(groups))
        if len(shape) > 2 and np.prod(shape[2:]) > 1:
            yield Case(Norm("instance"), shape, _instance)
            yield Case(Norm("layer", normalized_shape=shape[2:]), shape, _layer(shape[2:]))


# One value per statistic leaves nothing but bias, and gradients that are exactly 0: see test_functional.
CASES = [case for case in _cases() if view(case.norm, case.shape).count > 1]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def channels_last(x: Tensor) -> Tensor:
    """x in channels-last memory."""
    return x.contiguous(memory_format=torch.channels_last if x.dim() == 4 else torch.channels_last_3d)


def layouts(shape: tuple[int, ...]) -> list[bool]:
    """Whether to test channels-last memory beside the contiguous one."""
    return [False, True] if len(shape) in (4, 5) else [False]


@dataclass
class Draw:
    """Random data for a case; the same for the same seed."""

    x: Tensor
    dy: Tensor
    weight: Tensor | None
    bias: Tensor | None
    eps: float


def draw(
    case: Case, dtype: torch.dtype = torch.float64, last: bool = False, affine: str = "both", seed: int = 0
) -> Draw:
    """An input, a gradient, weight and bias ("both", "weight" or "none"), and an eps that is not the default."""
    generator = torch.Generator().manual_seed(seed)

    def randn(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x, dy = (randn(case.shape) * 2.5 + 1.5).to(dtype), randn(case.shape).to(dtype)
    if last:
        x, dy = channels_last(x), channels_last(dy)
    weight = (randn(case.affine_shape) + 0.5).to(dtype) if affine != "none" else None
    bias = randn(case.affine_shape).to(dtype) if affine == "both" and case.norm.subtract_mean else None
    return Draw(x, dy, weight, bias, 3e-3)


def to_numpy(tensor: Tensor | None) -> Any:
    """A tensor as a float64 array."""
    return None if tensor is None else tensor.detach().double().numpy()


def error(actual: Any, expected: Any) -> float:
    """The largest difference, relative to the largest expected value."""
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    if not expected.size:
        return 0.0
    return float(np.abs(actual - expected).max() / max(np.abs(expected).max(), 0.1))
