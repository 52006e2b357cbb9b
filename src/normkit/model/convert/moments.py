"""Weights and biases by which a converted layer returns the mean and the variance that the batch norm returned."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from normkit.model.convert.report import Match
from normkit.model.data import Forward, batches_of, run_batch
from normkit.model.norms import NormLayer
from normkit.model.preserve import preserved
from normkit.statistics import Moments, merge_moments

__all__ = ["Measured", "Rescaling", "measure"]


class Measured(NamedTuple):
    """What a norm returned on all data.

    Args:
        moments: Of each channel; of a layer with an activation before it.
        calls: How many times it was called in a forward pass, at most.
    """

    moments: Moments
    calls: int


class _ReachedError(BaseException):
    """Ends a forward pass at the layer that is measured; no model takes it for an error of its own."""


def measure(
    model: nn.Module, norms: Sequence[NormLayer], data: Iterable[Any], forward: Forward | None, *, stop: bool = False
) -> dict[str, Measured]:
    """Return what each norm returned on all data in evaluation, by its name, in the order of execution.

    Args:
        model: The model.
        norms: Its norms that are measured.
        data: Batches.
        forward: How to run the model on a batch.
        stop: Whether a forward pass may end where it comes to one of them.
    """
    found: dict[str, Moments] = {}
    calls: dict[str, list[int]] = {}  # in each forward pass

    def add(name: str, y: Tensor) -> None:
        calls[name][-1] += 1
        if y.numel():
            found[name] = merge_moments([*([found[name]] if name in found else []), _moments(y)])
        if stop:
            raise _ReachedError

    with preserved(model), torch.no_grad():
        model.eval()
        for norm in norms:
            calls[norm.name] = []
            drop = dict(norm.module.named_children()).get("drop")
            if drop is None:
                norm.module.register_forward_hook(_of_result(add, norm.name))
            else:
                drop.register_forward_pre_hook(_of_input(add, norm.name))
        for batch in batches_of(data, "convert"):
            for counts in calls.values():
                counts.append(0)
            with suppress(_ReachedError):
                run_batch(model, batch, forward)
    return {name: Measured(moments, max(calls[name])) for name, moments in found.items()}


def _moments(y: Tensor) -> Moments:
    """Return the moments of each channel of a result (N, C, *)."""
    wide = y.detach().double()
    count = y.numel() // y.shape[1]
    var, mean = torch.var_mean(wide, [axis for axis in range(y.dim()) if axis != 1], correction=0)
    return Moments(wide.new_full((), count), mean, var * count)


def _of_result(add: Callable[[str, Tensor], None], name: str) -> Callable[..., None]:
    return lambda _, __, y: add(name, y)


def _of_input(add: Callable[[str, Tensor], None], name: str) -> Callable[..., None]:
    return lambda _, inputs: add(name, inputs[0])


def _unscalable(model: nn.Module, layer: nn.Module) -> str | None:
    """Return why the weight and bias of a layer cannot be rescaled; None if they can."""
    if parametrize.is_parametrized(layer):
        return "its weight or bias is parametrized"
    own = [parameter for parameter in layer._parameters.values() if parameter is not None]
    if len(own) < 2:
        return "it has no weight, or no bias"
    shared = [
        parameter
        for module in model.modules()
        if module is not layer
        for parameter in module._parameters.values()
        if any(parameter is one for one in own)
    ]
    return "its weight or bias is shared with another layer" if shared else None


class Rescaling(NamedTuple):
    """Moments of the layers of a model: those that they are to have.

    Args:
        targets: Those of the batch norms.
        norms: The converted layers that ran, in the order of execution.
    """

    targets: Mapping[str, Measured]
    norms: Sequence[NormLayer]

    def run(self, model: nn.Module, data: Iterable[Any], forward: Forward | None) -> tuple[Match, ...]:
        """Rescale layer by layer, each with those before it rescaled already; return what it came to."""
        before: dict[str, tuple[float, float]] = {}
        left: dict[str, str | None] = {}
        for norm in self.norms:
            target = self.targets[norm.name]
            found = measure(model, [norm], data, forward, stop=target.calls == 1)[norm.name].moments
            before[norm.name] = _distance(found, target.moments)
            left[norm.name] = _unscalable(model, norm.module)
            if left[norm.name] is None:
                _rescale(norm.module, found, target.moments)
        after = measure(model, self.norms, data, forward)
        return tuple(
            Match(
                norm.name,
                before[norm.name],
                _distance(after[norm.name].moments, self.targets[norm.name].moments),
                left[norm.name],
            )
            for norm in self.norms
        )


def _rescale(layer: Any, found: Moments, target: Moments) -> None:
    """Change weight and bias so that the moments become those of the target, in place."""
    var, wanted = found.m2 / found.size, target.m2 / target.size
    scale = torch.where(var > 0, (wanted / var.clamp(min=1e-300)).sqrt(), torch.ones_like(var))
    weight, bias = (parameter.detach().double() for parameter in (layer.weight, layer.bias))
    with torch.no_grad():
        layer.weight.copy_(weight * scale)
        layer.bias.copy_(bias * scale + target.mean - found.mean * scale)


def _distance(found: Moments, target: Moments) -> tuple[float, float]:
    """Return the largest distance of means in standard deviations of the target, and of standard deviations, relative.

    Both are relative to the standard deviation over all channels where one channel has none.
    """
    std, wanted = ((moments.m2 / moments.size).sqrt() for moments in (found, target))
    overall = float(wanted.square().mean().sqrt())
    unit = wanted.clamp(min=1e-3 * overall if overall else 1.0)
    return float(((found.mean - target.mean).abs() / unit).max()), float(((std - wanted).abs() / unit).max())
