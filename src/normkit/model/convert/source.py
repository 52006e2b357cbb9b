"""Which layers can become another norm, and what has to stay with them."""

from typing import Any, Final, NamedTuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.lazy import LazyModuleMixin

from normkit.layers.batchnorm import BatchNormForward
from normkit.layers.batchnormact import BatchNormAct2d
from normkit.model.classes import ORIGINAL, PATCHED, Replacement, base_class, cover_of, is_patched
from normkit.model.convert.layers import RUNNING_STATE
from normkit.model.convert.report import NO_BATCH_NORM
from normkit.model.normact import recognize_norm_act
from normkit.model.norms import NormLayer
from normkit.model.sync import SYNCED_FROM

__all__ = ["Source", "source_of"]

_METHODS: Final = ("forward", "__call__", "_call_impl", "_normalize")
_HOMES: Final = ("torch.nn.modules.", "normkit.layers.")
_KNOWN: Final = {"weight", "bias", *RUNNING_STATE}
_ACTIVATION: Final = {"drop", "act"}


class Source(NamedTuple):
    """A batch norm that can become another norm.

    Args:
        layer: The layer.
        channels: Their number.
        is_ours: Whether its forward pass is normkit's.
        is_accelerated: Whether it was torch's before.
        acts: Whether it applies an activation too.
        takes_features: Whether its inputs may be (N, C), of one value a channel and sample.
    """

    layer: Any
    channels: int
    is_ours: bool
    is_accelerated: bool
    acts: bool
    takes_features: bool


def source_of(norm: NormLayer) -> Source | str:
    """Return what a layer is as the source of a conversion, or why it cannot be converted."""
    layer = norm.module
    cls = base_class(layer)
    if isinstance(layer, torch.jit.ScriptModule):
        return "it is TorchScript, compiled already"
    if norm.kind != "batch":
        return NO_BATCH_NORM
    if not isinstance(layer, _BatchNorm):
        return "it was written by hand, and what else it does cannot be kept"
    if isinstance(layer, LazyModuleMixin):
        return "it has not seen its first input"
    if cover_of(layer) is not None:
        return "it is frozen: call unfreeze first"
    if is_patched(layer):
        return PATCHED
    acts = issubclass(cls, BatchNormAct2d)
    own = next((name for name in _METHODS if not _home(cls, name).startswith(_HOMES)), None)
    if own is not None:
        if not isinstance(recognize_norm_act(layer, cls), Replacement):
            return f"its class overrides {own}, which may do more than a batch norm"
        acts = True
    extra = _extra(layer, acts=acts)
    if extra is not None:
        return f"it holds {extra}, which no other norm has a use for"
    before = vars(layer).get(SYNCED_FROM, cls)
    return Source(
        layer,
        layer.num_features,
        is_ours=issubclass(cls, BatchNormForward),
        is_accelerated=ORIGINAL in vars(layer),
        acts=acts,
        takes_features=not issubclass(before, nn.BatchNorm2d | nn.BatchNorm3d),
    )


def _home(cls: type[nn.Module], name: str) -> str:
    """Return the module that a method is from; one that there is not is nobody's own."""
    method = getattr(cls, name, None)
    return getattr(method, "__module__", None) or _HOMES[0]


def _extra(layer: nn.Module, *, acts: bool) -> str | None:
    """Return the name of something that a batch norm does not hold."""
    children = {name for name, _ in layer.named_children()} - {"parametrizations"} - (_ACTIVATION if acts else set())
    tensors = {*layer._parameters, *layer._buffers} - _KNOWN
    return next(iter(sorted(children | tensors)), None)
