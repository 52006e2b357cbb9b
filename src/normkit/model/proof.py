"""Is a recipe equal to the module that it is to stand for? Tried, not assumed."""

import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from normkit.model.handwritten import Recipe

# The attribute that holds, on a swapped module, the (input, weight) types in which it was proven equal.
PROVEN = "_normkit_proven"

_FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)

# Relative error of a result, and of a gradient, whose sums run over another order.
_TOLERANCE = {torch.float64: (1e-6, 1e-5), torch.float32: (1e-5, 1e-4)}
_HALF_TOLERANCE = (1e-2, 3e-2)

# In a half type a result differs where the same number in float32 lay near the middle between two neighbours, which is
# rare; rounding at another place than the original changes a quarter of all results.
_MAY_DIFFER = 0.02


def prove(module: nn.Module, cls: type[nn.Module], recipe: "type[Recipe]") -> frozenset[Any] | str:
    """The (input, weight) types in which a recipe gives what the module gives; or why not even in its own type.

    Works on stand-ins with random weights: the module, its gradients and the state of the random generators are not
    touched.
    """
    weight = cast(Tensor, module.weight)
    if weight.device.type == "meta":
        return "its weights are on the meta device, so nothing can be compared; accelerate after loading them"
    own = weight.dtype
    types = [(own, own), *((x, w) for x in _FLOATS for w in {own, x} if (x, w) != (own, own))]
    proven = set()
    with (
        torch.random.fork_rng(devices=[]),
        torch.enable_grad(),
        torch.autocast(weight.device.type, enabled=False),
        warnings.catch_warnings(),  # a user who asks for a model that is faster has not asked for these
    ):
        warnings.simplefilter("ignore")
        for x_dtype, weight_dtype in types:
            why = _difference(module, cls, recipe, x_dtype, weight_dtype)
            if why is None:
                proven.add((x_dtype, weight_dtype))
            elif not proven:
                return why
    return frozenset(proven)


def _difference(
    module: nn.Module, cls: type[nn.Module], recipe: "type[Recipe]", x_dtype: torch.dtype, weight_dtype: torch.dtype
) -> str | None:
    device = cast(Tensor, module.weight).device
    generator = torch.Generator(device).manual_seed(0)
    for shape in recipe.shapes(module):
        for scale, training in ((2.0, True), (1e-3, False)):  # the small one makes eps count
            x = (scale * (torch.randn(shape, generator=generator, device=device) + 0.7)).to(x_dtype).requires_grad_()
            stand_in = _stand_in(module, cls, weight_dtype, generator)
            stand_in.training = training
            before = dict(vars(stand_in))
            try:
                expected = stand_in.forward(x)
            except Exception as error:  # somebody else's code: whatever it raises, it is not proven
                return f"its own forward raised {type(error).__name__} on an input of shape {shape}"
            if any(value is not before.get(key) for key, value in vars(stand_in).items()):
                return "its forward keeps something on the module"
            try:
                got = recipe.normalize(cast("Recipe", stand_in), x)
            except Exception as error:
                return f"the recipe raised {type(error).__name__}: {error}"
            if not isinstance(expected, Tensor) or (got.dtype, got.shape) != (expected.dtype, expected.shape):
                return "the result has another type or shape"
            if got.stride() != expected.stride():
                return "the result lies in another memory layout"
            why = compare(got, expected, 0) or _compare_gradients(got, expected, [x, *stand_in.parameters()])
            if why is not None:
                return why
    return None


def _stand_in(module: nn.Module, cls: type[nn.Module], dtype: torch.dtype, generator: torch.Generator) -> nn.Module:
    """A module of the same class and attributes, with random parameters and no hooks."""
    stand_in = cls.__new__(cls)
    nn.Module.__init__(stand_in)  # its dictionaries of hooks, empty
    empty = dict(vars(stand_in))
    vars(stand_in).update({**vars(module), **empty})
    for name in ("weight", "bias"):
        parameter = getattr(module, name, None)
        if parameter is not None:
            values = torch.randn(parameter.shape, generator=generator, device=parameter.device)
            stand_in.register_parameter(name, nn.Parameter(values.to(dtype)))
        elif name in module._parameters:
            stand_in.register_parameter(name, None)
    return stand_in


def _compare_gradients(got: Tensor, expected: Tensor, inputs: list[Tensor]) -> str | None:
    generator = torch.Generator(got.device).manual_seed(1)
    dy = torch.randn(got.shape, generator=generator, device=got.device).to(got.dtype)
    for mine, theirs in zip(_gradients(got, inputs, dy), _gradients(expected, inputs, dy), strict=True):
        if mine is None or theirs is None or mine.dtype != theirs.dtype:
            return "a gradient is missing or of another type"
        why = compare(mine, theirs, 1)
        if why is not None:
            return f"a gradient differs: {why}"
    return None


def _gradients(y: Tensor, inputs: list[Tensor], dy: Tensor) -> Iterator[Tensor | None]:
    if not y.requires_grad:
        return iter([None] * len(inputs))
    return iter(torch.autograd.grad(y, inputs, dy, allow_unused=True))


def compare(got: Tensor, expected: Tensor, order: int) -> str | None:
    """What differs, in words. Order 0: a result, 1: a gradient."""
    got, expected = got.detach(), expected.detach()
    scale = expected.double().abs().max().clamp(min=1e-30)
    error = float((got.double() - expected.double()).abs().max() / scale)
    tolerance = _TOLERANCE.get(expected.dtype, _HALF_TOLERANCE)[order]
    if not error <= tolerance:
        return f"relative error {error:.1e}, allowed {tolerance:.0e}"
    changed = float((got != expected).double().mean())
    if order == 0 and expected.dtype not in _TOLERANCE and changed > _MAY_DIFFER:
        return f"{changed:.0%} of the numbers are rounded in another place"
    return None
