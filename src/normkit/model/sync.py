"""Conversion of every batch norm of a model to a SyncBatchNorm, and back."""

import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from normkit.layers.batchnorm import BatchNormForward
from normkit.layers.batchnormact import BatchNormAct2d
from normkit.layers.syncbatchnorm import BatchNorm, SyncBatchNorm, SyncForward
from normkit.model.classes import PATCHED, base_class, combine, is_patched, overrides, require_module, set_base_class
from normkit.model.equivalents import EQUIVALENTS, FORWARD, torch_norm

__all__ = ["SYNCED_FROM", "convert_sync_batchnorm", "revert_sync_batchnorm", "synced_class"]

# The attribute that holds, on a converted layer, the class it had.
SYNCED_FROM = "_normkit_synced_from"


def convert_sync_batchnorm(module: nn.Module, process_group: Any = None) -> nn.Module:
    """Make every BatchNorm of a model a SyncBatchNorm, in place.

    The layers stay the same objects with the same parameters, buffers, hooks and mode; an optimizer may exist already.
    A subclass that inherits the forward pass keeps everything else that it does. One that overrides it cannot be
    converted without losing that: it is left alone, and a warning names it.

    Args:
        module: A model, or a single layer.
        process_group: The ranks that share statistics; None: all.
    Returns:
        The same module.
    Raises:
        UserError: it is no torch.nn.Module.
    """
    require_module(module, "convert_sync_batchnorm")
    plan: list[tuple[nn.Module, type[nn.Module]]] = []
    skipped: list[str] = []
    for name, layer in module.named_modules():
        if not isinstance(layer, _BatchNorm):
            continue
        found = synced_class(layer, base_class(layer))
        if isinstance(found, str):
            skipped.append(f"{name or 'the module'} ({type(layer).__name__}: {found})")
        else:
            plan.append((layer, found))
    for layer, cls in plan:
        if not isinstance(layer, (SyncForward, nn.SyncBatchNorm)):
            vars(layer)[SYNCED_FROM] = base_class(layer)
        set_base_class(layer, cls)
        vars(layer)["process_group"] = process_group
    if skipped:
        names = ", ".join(skipped)
        warnings.warn(
            f"convert_sync_batchnorm left {names} as they are: each rank normalizes by its own batch there",
            stacklevel=2,
        )
    return module


def revert_sync_batchnorm(module: nn.Module) -> nn.Module:
    """Make every SyncBatchNorm of a model, torch's too, a BatchNorm again, in place.

    A converted layer gets the class back that it had; one that was built as a SyncBatchNorm becomes a batch norm that
    takes any number of axes.

    Args:
        module: A model, or a single layer.
    Returns:
        The same module.
    Raises:
        UserError: it is no torch.nn.Module.
    """
    require_module(module, "revert_sync_batchnorm")
    for layer in module.modules():
        if isinstance(layer, (SyncForward, nn.SyncBatchNorm)):
            set_base_class(layer, vars(layer).pop(SYNCED_FROM, BatchNorm))
            vars(layer).pop("process_group", None)
    return module


def synced_class(layer: nn.Module, cls: type[nn.Module]) -> type[nn.Module] | str:
    """Return the class that a batch norm becomes, or why it cannot."""
    if isinstance(layer, SyncForward):
        return cls
    if isinstance(layer, LazyModuleMixin):
        return "it has not seen its first input"
    if isinstance(layer, torch.jit.ScriptModule):
        return "it is TorchScript"
    if is_patched(layer):
        return PATCHED
    base = torch_norm(cls)
    if base is None:
        return "it is no BatchNorm of torch.nn"
    ours = EQUIVALENTS[base]
    if cls in (base, ours):
        return SyncBatchNorm
    if issubclass(cls, BatchNormAct2d):
        ours = BatchNormAct2d
    own = overrides(cls, ours if issubclass(cls, BatchNormForward) else base, (*FORWARD, "_normalize"))
    return f"it overrides {own[0]}" if own else combine(SyncForward, cls)
