"""Whether a layer that somebody wrote normalizes: found by running copies of it, not by its name."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Final, NamedTuple

import torch
from torch import Tensor, nn

from normkit.model.normact import random_copy

__all__ = ["adds_one", "normalizes"]

_MOST: Final = 1 << 20
"""A layer with more values in its parameters is taken for none: its copies would be large."""


def normalizes(module: nn.Module) -> bool:
    """Tell whether a layer is a norm, by what it computes.

    It is one if its result has the shape of its input, does not change with the input's scale, depends at each element
    on other elements too, and if each value of each of its parameters acts on the elements of one place alone.
    """
    with _apart():
        return any(_is_norm(trial) for trial in _trials(module))


def adds_one(module: nn.Module) -> tuple[str, ...]:
    """Return the parameters of a norm that multiply its result as 1 + weight: at -1 the input has no part in it."""
    with _apart():
        trials = list(_trials(module))
        names = (name for name, _ in module.named_parameters())
        return tuple(name for name in names if any(_adds_one(trial, name) for trial in trials))


class _Trial(NamedTuple):
    """A random copy of a layer, and inputs of a shape that it takes; the first is what is normalized."""

    copy: nn.Module
    training: bool
    x: Tensor
    others: tuple[Tensor, ...]
    y: Tensor

    def run(self, x: Tensor) -> Tensor:
        result: Tensor = self.copy.train(self.training)(x, *self.others)
        return result


def _trials(module: nn.Module) -> Iterator[_Trial]:
    """Yield a trial for every shape of input that a layer of somebody's own takes."""
    own = list(module.parameters())
    is_known = type(module).__module__.startswith(("torch.", "normkit."))
    if is_known or not own or any(True for _ in module.children()) or not _is_small(own):
        return
    try:
        copy = random_copy(module).double().cpu()
    except Exception:  # somebody else's code: it cannot be copied
        return
    for training, shape in product((True, False), _shapes(max(own, key=torch.numel))):
        copy.train(training)
        x = 3 * torch.randn(shape, dtype=torch.float64) + 1
        for others in ((), (torch.rand_like(x) + 0.5,)):
            try:
                y = copy(x, *others)
            except Exception:  # somebody else's code: it does not take this input
                continue
            if isinstance(y, Tensor) and y.shape == x.shape and bool(y.isfinite().all()):
                yield _Trial(copy, training, x, others, y)


def _is_small(parameters: list[nn.Parameter]) -> bool:
    ready = not any(nn.parameter.is_lazy(one) or one.is_meta for one in parameters)
    return ready and sum(one.numel() for one in parameters) <= _MOST


def _shapes(weight: Tensor) -> Iterator[tuple[int, ...]]:
    """Yield shapes of inputs that a weight may belong to: of the last axes, or of the channels on axis 1."""
    size = tuple(weight.shape)
    if len(size) > 1:
        tail = size[1:] if size[0] == 1 else size
        yield 4, *(length if length > 1 else 5 for length in tail)
        return
    (length,) = size or (1,)
    length = length if length > 1 else 6  # one number scales all
    yield 4, 7, length
    yield 4, length, 5, 3
    yield 4, length, 5
    yield 4, length


@contextmanager
def _apart() -> Iterator[None]:
    """Keep the caller's random generators, gradients, autocast and warnings out of it."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def _is_norm(trial: _Trial) -> bool:
    try:
        return _is_free_of_scale(trial) and _couples(trial) and _acts_by_element(trial)
    except Exception:  # somebody else's code
        return False


def _is_free_of_scale(trial: _Trial) -> bool:
    larger = trial.run(1000 * trial.x)
    return _differ(larger, trial.y) < 1e-2 < _differ(trial.run(trial.x.flip(0).roll(1, -1)), trial.y)


def _couples(trial: _Trial) -> bool:
    """Whether one element of the input changes results at other places."""
    x = trial.x.clone()
    x.view(-1)[0] += 5
    return bool((trial.run(x) - trial.y).abs().view(-1)[1:].max() > 1e-6)


def _acts_by_element(trial: _Trial) -> bool:
    """Whether each value of a parameter changes the results of its own place alone."""
    return all(_is_confined(trial, parameter) for parameter in trial.copy.parameters())


def _is_confined(trial: _Trial, parameter: Tensor) -> bool:
    place = torch.zeros_like(parameter, dtype=torch.bool)
    place.view(-1)[0] = True
    parameter.view(-1)[0] += 1
    changed = (trial.run(trial.x) - trial.y).abs() > 1e-6
    parameter.view(-1)[0] -= 1
    on_axis_1 = place.reshape(-1, *[1] * (trial.x.dim() - 2))
    for view in (place, on_axis_1):
        try:
            allowed = view.expand_as(changed)
        except RuntimeError:
            continue
        if bool(changed.any()) and not bool((changed & ~allowed).any()):
            return True
    return False


def _adds_one(trial: _Trial, name: str) -> bool:
    parameter = trial.copy.get_parameter(name)
    before = parameter.clone()
    other = trial.x.flip(0).roll(1, -1)
    try:
        parameter.fill_(-1.0)
        return float((trial.run(trial.x) - trial.run(other)).abs().max()) < 1e-6
    except Exception:  # somebody else's code
        return False
    finally:
        parameter.copy_(before)


def _differ(a: Tensor, b: Tensor) -> float:
    """Return the largest difference, relative to the largest value."""
    return float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
