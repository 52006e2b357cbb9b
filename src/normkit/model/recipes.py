"""The recipes that normkit has for hand-written norms, and how a module is matched with one.

A module is swapped only after a recipe has given the same result, dtypes and gradients (:mod:`normkit.model.verify`).

To teach normkit another one::

    @normkit.register_norm
    class DoubledRMSNorm(normkit.Recipe):
        @classmethod
        def fits(cls, module):
            return type(module).__name__ == "DoubledRMSNorm"

        def normalize(self, x):
            return normkit.functional.rms_norm(x, self.weight.shape, 2 * self.weight, self.eps)
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from normkit import functional as F
from normkit.backends.dtypes import HALF_DTYPES
from normkit.errors import UserError
from normkit.model.classes import Replacement, combine
from normkit.model.recipe import PROVEN, Recipe
from normkit.model.verify import verify

__all__ = ["RECIPES", "eps_of", "recognize", "register_norm"]

RecipeT = TypeVar("RecipeT", bound=type[Recipe])

RECIPES: list[type[Recipe]] = []


def register_norm(recipe: RecipeT) -> RecipeT:
    """Register a recipe that :func:`normkit.accelerate` is to try; the last one is tried first. Use it as a decorator.

    Args:
        recipe: A class, at the top level of a module: swapped layers are pickled by its name.
    Raises:
        UserError: it is no subclass of Recipe.
    """
    if not (isinstance(recipe, type) and issubclass(recipe, Recipe)):
        raise UserError(f"register_norm expected a subclass of normkit.Recipe; got {recipe!r}")
    if recipe not in RECIPES:
        RECIPES.insert(0, recipe)
    return recipe


def recognize(module: nn.Module, cls: type[nn.Module]) -> Replacement | str | None:
    """Return what computes the same as a hand-written module, why there is nothing, or None if it is no norm."""
    why: list[str] = []
    for recipe in RECIPES:
        if recipe.fits(module):
            proven = verify(module, cls, recipe)
            if isinstance(proven, str):
                why.append(f"{recipe.__name__}: {proven}")
            else:
                return Replacement(combine(recipe, cls), {PROVEN: proven})
    if why:
        return f"no recipe gave equal numbers ({'; '.join(sorted(set(why)))})"
    if issubclass(cls, nn.LayerNorm) or (_looks_like_norm(module) and any(True for _ in module.parameters())):
        return "no recipe describes it (see normkit.register_norm)"
    return None


def _looks_like_norm(module: nn.Module) -> bool:
    children = [name for name, _ in module.named_children() if name != "parametrizations"]
    return "norm" in type(module).__name__.lower() and not children


def eps_of(module: Any) -> float | None:
    """Return eps under any of the names that it goes by; None if it is not a float."""
    for name in ("variance_epsilon", "eps", "epsilon", "_eps"):
        value = getattr(module, name, None)
        if isinstance(value, float):
            return value
    return None


def _bias(module: nn.Module) -> Tensor | None:
    return getattr(module, "bias", None)


def _narrow(x: Tensor) -> Tensor:
    """Cast float64 to float32, as the original does. Half-precision inputs stay: the kernels read them as they are."""
    return x.float() if x.dtype is torch.float64 else x


def _parameters(module: nn.Module) -> set[str]:
    """Name the parameters of a simple norm, parametrized or not; none if weight is not 1-D or there are buffers."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.dim() != 1 or any(True for _ in module.buffers(recurse=False)):
        return set()
    own = {name for name, parameter in module.named_parameters(recurse=False) if parameter is not None}
    return own | set(getattr(module, "parametrizations", {}))


class _RMSNorm(Recipe):
    eps: float

    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        return _looks_like_norm(module) and eps_of(module) is not None and _parameters(module) == {"weight"}


@register_norm
class PlusOneRMSNorm(_RMSNorm):
    """RMSNorm of Gemma: the weight is stored as its distance from one, and multiplied before the cast."""

    def normalize(self, x: Tensor) -> Tensor:
        """Multiply by 1 + weight in float32."""
        return F.rms_norm(_narrow(x), self.weight.shape, 1.0 + self.weight.float(), eps_of(self)).to(x.dtype)


@register_norm
class CastLastRMSNorm(_RMSNorm):
    """RMSNorm of OLMo: the weight is multiplied in float32, then the result is cast to the input's dtype."""

    def normalize(self, x: Tensor) -> Tensor:
        """Multiply by the weight before the cast."""
        return F.rms_norm(_narrow(x), self.weight.shape, self.weight.float(), eps_of(self)).to(x.dtype)


@register_norm
class NeverCastRMSNorm(_RMSNorm):
    """RMSNorm of T5: the result stays in float32, unless the weight is in half precision."""

    def normalize(self, x: Tensor) -> Tensor:
        """Multiply by the weight in float32, or in the weight's half-precision dtype."""
        wide = x if x.dtype not in HALF_DTYPES else x.float()
        if self.weight.dtype in HALF_DTYPES:
            return self.weight * F.rms_norm(wide, self.weight.shape, None, eps_of(self)).to(self.weight.dtype)
        return F.rms_norm(wide, self.weight.shape, self.weight, eps_of(self))


@register_norm
class CastFirstRMSNorm(_RMSNorm):
    """RMSNorm of Llama: normalize in float32, cast to the input's dtype, then multiply by the weight."""

    def normalize(self, x: Tensor) -> Tensor:
        """Cast before the weight is multiplied."""
        if x.dtype is torch.float32 and self.weight.dtype is torch.float32:
            return F.rms_norm(x, self.weight.shape, self.weight, eps_of(self))
        return self.weight * F.rms_norm(_narrow(x), self.weight.shape, None, eps_of(self)).to(x.dtype)


class _LayerNorm(Recipe):
    @classmethod
    def fits(cls, module: nn.Module) -> bool:
        own = _parameters(module)
        return _looks_like_norm(module) and eps_of(module) is not None and {"weight"} <= own <= {"weight", "bias"}


@register_norm
class LastAxisLayerNorm(_LayerNorm):
    """LayerNorm over the last axis, written by hand."""

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize over the last axis."""
        return F.layer_norm(x, self.weight.shape, self.weight, _bias(self), eps_of(self) or 0.0)


@register_norm
class PermutedLayerNorm(_LayerNorm):
    """LayerNorm over the channels of (N, C, H, W) by permute, layer norm, permute: ConvNeXt's LayerNorm2d."""

    @classmethod
    def shapes(cls, module: nn.Module) -> tuple[tuple[int, ...], ...]:
        """Return a shape whose rows and columns cannot be taken for channels."""
        (channels,) = module.weight.shape  # type: ignore[misc]
        return ((2, channels, channels + 1 if channels < 8 else 3, 2),)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize over the channels; the result is channels last."""
        return F.channel_norm(x, self.weight, _bias(self), eps_of(self) or 0.0)


@register_norm
class ChannelFirstLayerNorm(PermutedLayerNorm):
    """LayerNorm over the channels of (N, C, H, W) in the memory layout of the input: SAM's LayerNorm2d."""

    def normalize(self, x: Tensor) -> Tensor:
        """Normalize over the channels; the result of a contiguous input is contiguous."""
        y = F.channel_norm(x, self.weight, _bias(self), eps_of(self) or 0.0)
        return y.contiguous() if x.is_contiguous() else y
