"""What normkit's norms gain or lose a model on one input: which of them run in kernels, and how long a pass takes."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from time import perf_counter
from typing import Any, Final

import torch
from torch import nn

from normkit.backends.watch import watched_kernels
from normkit.bench.measure import MIN_ROUNDS, Timing
from normkit.errors import UserError
from normkit.model.data import run_backward, run_batch, unwrapped
from normkit.model.preserve import preserved
from normkit.model.summary import Gain

__all__ = ["measure_gain"]

_ROUNDS: Final = 9
_SECONDS: Final = 3.0  # of both variants together; then MIN_ROUNDS are enough


def measure_gain(
    model: nn.Module,
    example: Any,
    norms: Mapping[str, nn.Module],
    without: Callable[[], AbstractContextManager[object]],
) -> Gain:
    """Run a model on one batch with and without normkit's norms, in turn; leave it as it was.

    Args:
        model: With normkit's norms, in the mode that is to be measured.
        example: A batch, as :func:`normkit.model.data.run_batch` takes it.
        norms: Its norms of normkit, by name.
        without: Makes a context in which it has those that it has without normkit.
    Raises:
        UserError: the model is wrapped or compiled, or a lazy layer has seen no input.
    """
    if unwrapped(model) is not model:
        raise UserError(
            "accelerate expected a model that is not wrapped or compiled beside an example: accelerate it, then wrap it"
        )
    with preserved(model):
        kernels, reached = _kernels(model, example, norms)
        before, after = _times(model, example, without)
    handed_over = tuple(name for name in norms if name in reached and name not in kernels)
    unused = tuple(name for name in norms if name not in reached)
    ran = tuple(name for name in norms if name in kernels)
    return Gain(model.training, ran, handed_over, unused, before, after)


def _kernels(model: nn.Module, example: Any, norms: Mapping[str, nn.Module]) -> tuple[set[str], set[str]]:
    """Return the norms that run in a kernel, and all that run."""
    reached: list[str] = []
    kernels: set[str] = set()
    with ExitStack() as hooks:
        for name, norm in norms.items():
            handle = norm.register_forward_pre_hook(lambda _layer, _args, name=name: reached.append(name))
            hooks.callback(handle.remove)
        hooks.enter_context(watched_kernels(lambda: kernels.update(reached[-1:])))
        _run(model, example)
    return kernels, set(reached)


def _times(
    model: nn.Module, example: Any, without: Callable[[], AbstractContextManager[object]]
) -> tuple[Timing, Timing]:
    before: list[float] = []
    after: list[float] = []
    for _ in range(_ROUNDS):
        with without():
            before.append(_seconds(model, example))
        after.append(_seconds(model, example))
        if len(after) >= MIN_ROUNDS and sum(before) + sum(after) > _SECONDS / 2:
            break
    return Timing.of(before), Timing.of(after)


def _seconds(model: nn.Module, example: Any) -> float:
    """Return the duration of a pass; the one before it finds caches and allocator as the other variant left them."""
    _run(model, example)
    began = perf_counter()
    _run(model, example)
    return perf_counter() - began


def _run(model: nn.Module, example: Any) -> None:
    """Do what the mode of the model is for: a forward pass without gradients, or a forward and a backward pass."""
    with torch.set_grad_enabled(model.training):
        outputs = run_batch(model, example)
    if run_backward(outputs):
        model.zero_grad(set_to_none=True)  # the next pass makes its gradients anew, as after an optimizer's step
