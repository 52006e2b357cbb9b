"""Verify that a recipe computes what the module computes that it is to stand for: tried, not assumed."""

import warnings
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from normkit.model.equivalence import difference, run
from normkit.model.recipe import Recipe

__all__ = ["verify"]

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


class _Case(NamedTuple):
    """An input and a mode in which module and recipe are compared."""

    shape: tuple[int, ...]
    x_dtype: torch.dtype
    weight_dtype: torch.dtype
    scale: float
    training: bool


def verify(
    module: nn.Module, cls: type[nn.Module], recipe: type[Recipe]
) -> frozenset[tuple[torch.dtype, torch.dtype]] | str:
    """Return the (input, weight) dtypes in which a recipe gives what a module gives; or why not even in its own dtype.

    Works on copies with random weights: the module, its gradients and the state of the random generators are not
    touched.

    Args:
        module: The module that the recipe is to stand for.
        cls: Its class, without the one of a parametrization.
        recipe: The recipe to try.
    """
    weight = cast("Tensor", module.weight)
    if weight.device.type == "meta":
        return "its weights are on the meta device, so nothing can be compared; accelerate after loading them"
    own = weight.dtype
    pairs = [(own, own), *((x, w) for x in _FLOATS for w in {own, x} if (x, w) != (own, own))]
    proven = set()
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        torch.autocast(weight.device.type, enabled=False),
        warnings.catch_warnings(),  # a user who asks for a model that is faster has not asked for these
    ):
        warnings.simplefilter("ignore")
        for pair in pairs:
            reasons = (_difference(module, cls, recipe, case) for case in _cases(module, recipe, pair))
            why = next(filter(None, reasons), None)
            if why is None:
                proven.add(pair)
            elif not proven:
                return why
    return frozenset(proven)


def _cases(module: nn.Module, recipe: type[Recipe], pair: tuple[torch.dtype, torch.dtype]) -> Iterator[_Case]:
    for shape in recipe.shapes(module):
        yield _Case(shape, *pair, scale=2.0, training=True)
        yield _Case(shape, *pair, scale=1e-3, training=False)  # so small that eps counts


def _difference(module: nn.Module, cls: type[nn.Module], recipe: type[Recipe], case: _Case) -> str | None:
    """Say in words what differs between a module and a recipe in one case; None if nothing does."""
    device = cast("Tensor", module.weight).device
    generator = torch.Generator(device).manual_seed(0)
    x = case.scale * (torch.randn(case.shape, generator=generator, device=device) + 0.7)
    x = x.to(case.x_dtype).requires_grad_()
    copy = _random_copy(module, cls, case.weight_dtype, generator)
    copy.training = case.training
    try:
        expected = run(copy, copy.forward, x)
    except Exception as error:  # somebody else's code: whatever it raises, it is not proven
        return f"its own forward raised {type(error).__name__} on an input of shape {case.shape}"
    try:
        got = run(copy, partial(recipe.normalize, cast("Recipe", copy)), x)
    except Exception as error:
        return f"the recipe raised {type(error).__name__}: {error}"
    return difference(got, expected)


def _random_copy(module: nn.Module, cls: type[nn.Module], dtype: torch.dtype, generator: torch.Generator) -> nn.Module:
    """Return a module of the same class and attributes, with random parameters and no hooks."""
    copy = cls.__new__(cls)
    nn.Module.__init__(copy)  # its dictionaries of hooks, empty
    empty = dict(vars(copy))
    vars(copy).update({**vars(module), **empty})
    for name in ("weight", "bias"):
        parameter = getattr(module, name, None)
        if parameter is not None:
            values = torch.randn(parameter.shape, generator=generator, device=parameter.device)
            copy.register_parameter(name, nn.Parameter(values.to(dtype)))
        elif name in module._parameters:
            copy.register_parameter(name, None)
    return copy
