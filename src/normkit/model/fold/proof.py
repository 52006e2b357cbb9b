"""The model and its folded copies run on the example, compared and timed; the model itself is never run."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from statistics import median
from time import perf_counter
from typing import Any, Final

import torch
from torch import Tensor, nn

from normkit.errors import UserError
from normkit.model.data import Forward, device_of, map_tensors, run_batch, tensors_in
from normkit.model.fold.affine import relative_difference

__all__ = ["Trial", "difference", "limit_of", "time_in_turns"]

# Relative to the largest value of a result. What folding itself changes is far below in float64.
_LIMITS: Final = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}

_MOST: Final = 0.1

_ROUNDING: Final = 2.0**-24  # of float32, relative

_SECONDS: Final = 0.5  # that timing may take, unless a single run takes longer
_ROUNDS: Final = (3, 41)  # at least and at most


@dataclass(frozen=True)
class Trial:
    """How copies of a model are run on an example.

    Args:
        model: The model, which is not touched.
        example: Its input.
        forward: How to call it.
    """

    model: nn.Module
    example: Any
    forward: Forward | None

    def copy(self, *, in_float64: bool) -> nn.Module:
        """Return a copy of the model.

        Raises:
            UserError: it cannot be copied.
        """
        try:
            copied = deepcopy(self.model)
        except Exception as error:
            raise UserError(f"fold works on copies of the model, and this one cannot be copied: {error}") from error
        return copied.double() if in_float64 else copied

    def batch(self, *, in_float64: bool) -> Any:
        """Return a copy of the example."""

        def given(tensor: Tensor) -> Tensor:
            return tensor.double() if in_float64 and tensor.is_floating_point() else tensor.clone()

        return map_tensors(self.example, lambda tensor: given(tensor.detach()))

    def run(self, model: nn.Module, batch: Any) -> Any:
        """Run a copy, with the same random numbers each time."""
        device = device_of(model)
        devices = [device.index or 0] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.no_grad(), torch.autocast(device.type, enabled=False):
            torch.manual_seed(0)
            return run_batch(model, batch, self.forward)

    def results(self, model: nn.Module, *, in_float64: bool) -> list[Tensor]:
        """Run a copy, and return the tensors in its result."""
        return list(tensors_in(self.run(model, self.batch(in_float64=in_float64))))

    def noise(self, expected: list[Tensor]) -> float:
        """Return how far results in float64 move if the weights move by as much as float32 would round them."""
        copied = self.copy(in_float64=True)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in copied.parameters():
                if parameter.is_floating_point():
                    factors = 1 + _ROUNDING * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                    parameter.mul_(factors.to(parameter.device))
        return difference(self.results(copied, in_float64=True), expected)


def difference(got: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of results, relative to the largest value of each.

    Whole numbers are compared where rounding does not reach them: in float64.
    """
    if len(got) != len(expected):
        return float("inf")
    pairs = list(zip(got, expected, strict=True))
    exact = all(not x.is_floating_point() or x.dtype is torch.float64 for x in expected)
    return max(
        (relative_difference(mine, theirs) for mine, theirs in pairs if exact or _is_inexact(theirs)), default=0.0
    )


def limit_of(dtype: torch.dtype, noise: float) -> float:
    """Return how much results may differ.

    Args:
        dtype: The dtype of the results.
        noise: How far rounding alone moves them. The folded model may be as far on the other side, and rounds at other
            places. Where it moves them by more than a tenth, nothing can be proven.
    """
    return max(_LIMITS.get(dtype, _LIMITS[torch.float32]), min(4 * noise, _MOST))


def time_in_turns(one: Callable[[], Any], other: Callable[[], Any], device: torch.device) -> tuple[float, float]:
    """Return the median seconds of two functions, which run in turns."""
    one(), other()
    times: tuple[list[float], list[float]] = ([], [])
    end = perf_counter() + _SECONDS
    while len(times[0]) < _ROUNDS[0] or (perf_counter() < end and len(times[0]) < _ROUNDS[1]):
        for run, taken in zip((one, other), times, strict=True):
            begin = perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            taken.append(perf_counter() - begin)
    return median(times[0]), median(times[1])


def _is_inexact(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()
