"""Freeze batch norms so that they stay frozen, and thaw them as they were."""

from collections.abc import Callable
from contextlib import ExitStack

from torch import nn
from torch.nn.parameter import is_lazy

from normkit.model.classes import base_class, cover_of, require_module, set_cover
from normkit.model.data import unwrapped
from normkit.model.frozen import TRAINABLE, Frozen, cover_for
from normkit.model.norms import Names, chosen_norms, running_stats
from normkit.model.preserve import set_mode, stored_mode
from normkit.model.summary import Skipped, Summary

__all__ = ["freeze", "is_frozen", "unfreeze"]


def freeze(model: nn.Module, *, affine: bool = True, include: Names = "*", exclude: Names = ()) -> Summary:
    """Let norms use their running statistics for good: in training mode too, and without updating them.

    In place. ``model.train()``, loops over modules and assignments to ``training`` change nothing about it; only
    :func:`unfreeze` does. A layer keeps its parameters, buffers, hooks and name (the same objects, the same
    state_dict); its class changes, and its repr says "frozen". It survives copying, pickling, :func:`accelerate`,
    :func:`convert_sync_batchnorm` and their undoing. It is not part of a state_dict: freeze a model again after it was
    built anew.

    Every layer that keeps running statistics can be frozen, whoever wrote it; one with a forward pass of its own is
    tried first. Layers without them are left and named.

    Args:
        model: The model, or a single layer.
        affine: Whether weight and bias are frozen too: ``requires_grad`` is off, and gradients that they have are
            dropped, by which an optimizer would go on moving them.
        include: Patterns of names of the layers to freeze, as ``"backbone.*"``, or several.
        exclude: Patterns of names of layers to leave.
    Returns:
        What was frozen, and what was left and why. Print it.
    Raises:
        UserError: model is no torch.nn.Module; a pattern fits no norm.

    >>> import torch, normkit
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.BatchNorm1d(8))
    >>> print(normkit.freeze(model))
    freeze: 1 layer frozen
      1 × BatchNorm1d: 1
    >>> model.train()[1].training
    False
    """
    require_module(model, "freeze")
    plan: list[tuple[nn.Module, type[Frozen], list[str]]] = []
    frozen: list[tuple[str, str]] = []
    left: list[Skipped] = []
    already = 0
    for name, layer, kind in chosen_norms(unwrapped(model), include, exclude):
        cls = base_class(layer).__name__
        trained = [key for key, parameter in _own(layer).items() if affine and parameter.requires_grad]
        cover = _cover(layer, kind)
        if isinstance(cover, str):
            left.append(Skipped(name, cls, cover))
        elif _is_covered(layer) and not trained:
            already += 1
        else:
            plan.append((layer, cover, trained))
            frozen.append((name, cls))
    with ExitStack() as undo:
        for layer, cover, trained in plan:
            undo.callback(_snapshot(layer))
            _freeze(layer, cover, trained)
        undo.pop_all()
    return Summary("freeze", tuple(frozen), tuple(left), already)


def unfreeze(model: nn.Module, *, include: Names = "*", exclude: Names = ()) -> Summary:
    """Undo :func:`freeze`.

    A layer gets its class back, and ``requires_grad`` as it was. Its mode is what train() and eval() have asked for
    last, as if it had never been frozen.

    Args:
        model: The model, or any part of it.
        include: Patterns of names of the layers to thaw, or several.
        exclude: Patterns of names of layers to leave frozen.
    Returns:
        What was thawed. Print it.
    Raises:
        UserError: model is no torch.nn.Module; a pattern fits no norm.
    """
    require_module(model, "unfreeze")
    model = unwrapped(model)
    thawed = [(name, layer) for name, layer, _ in chosen_norms(model, include, exclude) if _is_covered(layer)]
    layers = [layer for _, layer in thawed]
    others = [layer for layer in model.modules() if _is_covered(layer) and layer not in layers]
    held = {id(parameter) for layer in others for parameter in _remembered(layer)}  # tied weights
    with ExitStack() as undo:
        for layer in layers:
            undo.callback(_snapshot(layer))
            _unfreeze(layer, held)
        undo.pop_all()
    return Summary("unfreeze", tuple((name, base_class(layer).__name__) for name, layer in thawed), (), 0)


def is_frozen(model: nn.Module) -> bool:
    """Tell whether a layer is frozen; of a model, whether every layer that keeps running statistics is.

    Args:
        model: A layer, or a model. One without such layers is not frozen.
    Raises:
        UserError: model is no torch.nn.Module.
    """
    require_module(model, "is_frozen")
    layers = [layer for layer in model.modules() if running_stats(layer)]
    return bool(layers) and all(_is_covered(layer) for layer in layers)


def _cover(layer: nn.Module, kind: str) -> type[Frozen] | str:
    """Return the class that freezes a layer, or why it cannot be frozen."""
    stats = running_stats(layer)
    if not stats:
        uses = "normalizes by each batch" if kind == "batch" else "is the same in training and evaluation"
        return f"it keeps no running statistics, and {uses}"
    if any(is_lazy(buffer) for buffer in stats.values()):
        return "it has not seen its first input"
    over = cover_of(layer)
    return over if over is not None and issubclass(over, Frozen) else cover_for(layer)


def _is_covered(layer: nn.Module) -> bool:
    return isinstance(layer, Frozen)


def _own(layer: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters of a layer itself, parametrized ones too; those of layers inside it are not its own."""
    return {
        name: parameter
        for name, parameter in layer.named_parameters(remove_duplicate=False)
        if "." not in name or name.startswith("parametrizations.")
    }


def _remembered(layer: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a frozen layer that were trained before."""
    own = _own(layer)
    return [own[name] for name in vars(layer).get(TRAINABLE, ()) if name in own]


def _freeze(layer: nn.Module, cover: type[Frozen], trained: list[str]) -> None:
    own = _own(layer)
    vars(layer)[TRAINABLE] = (*vars(layer).get(TRAINABLE, ()), *trained)
    for name in trained:
        own[name].requires_grad = False
        own[name].grad = None
    set_cover(layer, cover)
    set_mode(layer, training=stored_mode(layer))


def _unfreeze(layer: nn.Module, held: set[int]) -> None:
    for parameter in _remembered(layer):
        parameter.requires_grad = id(parameter) not in held
    del vars(layer)[TRAINABLE]
    set_cover(layer, None)
    set_mode(layer, training=stored_mode(layer))


def _snapshot(layer: nn.Module) -> Callable[[], None]:
    """Return a function that makes a layer what it is now."""
    cover, names = cover_of(layer), vars(layer).get(TRAINABLE)
    parameters = [(parameter, parameter.requires_grad, parameter.grad) for parameter in _own(layer).values()]

    def undo() -> None:
        for parameter, requires_grad, grad in parameters:
            parameter.requires_grad = requires_grad
            parameter.grad = grad
        vars(layer).pop(TRAINABLE, None)
        if names is not None:
            vars(layer)[TRAINABLE] = names
        if cover_of(layer) is not cover:
            set_cover(layer, cover)
        set_mode(layer, training=stored_mode(layer))

    return undo
