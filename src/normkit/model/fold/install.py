"""Folds put into a model, in place; and taken out again."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from normkit.model.fold.layers import Weights, parameter_like, set_weights
from normkit.model.fold.plan import Fold

__all__ = ["install"]


def install(model: nn.Module, folds: tuple[Fold, ...], weights: Mapping[str, Weights]) -> None:
    """Give layers their new weights, and take the norms out of the model: everything, or nothing.

    Parameters that change are new ones; those that the model had keep their values.

    Args:
        model: The model.
        folds: The folds.
        weights: The weights of the layers into which they go, in float64.
    """
    undo = _undo(model)
    try:
        for name, new in weights.items():
            set_weights(model.get_submodule(name), new)
        for fold in folds:
            norm = model.get_submodule(fold.norm)
            if fold.affine.removes_norm:
                _replace(model, norm, _rest(norm, fold.affine.activation))
            for name, value in fold.affine.neutral.items():
                like = cast("Tensor", getattr(norm, name))
                norm._parameters[name] = parameter_like(like, torch.full_like(like, value))
    except BaseException:  # an interrupt too
        undo()
        raise


def _undo(model: nn.Module) -> Callable[[], None]:
    """Return a function that gives every module the parameters and children back that it has now."""
    saved: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in model.modules():
        saved += [(held, dict(held)) for held in (module._parameters, module._modules)]

    def undo() -> None:
        for held, entries in saved:
            held.clear()
            held.update(entries)

    return undo


def _rest(norm: nn.Module, activation: tuple[str, ...]) -> nn.Module:
    """Return what remains of a norm: its activation, or nothing."""
    parts = [norm.get_submodule(name) for name in activation]
    active = [part for part in parts if not isinstance(part, nn.Identity)]
    rest = active[0] if len(active) == 1 else nn.Sequential(*active) if active else nn.Identity()
    return rest.train(norm.training)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put a module in all places of another one."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
