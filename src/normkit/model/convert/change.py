"""A batch norm becomes another layer, in place: another class, other attributes, no running statistics."""

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normkit import layers
from normkit.layers.syncbatchnorm import SyncForward
from normkit.model.classes import ORIGINAL, base_class, combine, set_base_class
from normkit.model.convert.groups import Groups, num_groups
from normkit.model.convert.layers import RUNNING_STATE, InstanceNorm, NormAct, drop_running_state
from normkit.model.convert.report import NO_BATCH_NORM
from normkit.model.convert.source import Source, source_of
from normkit.model.freeze import freeze, unfreeze
from normkit.model.frozen import Frozen
from normkit.model.norms import NormLayer, running_stats
from normkit.model.sync import SYNCED_FROM, convert_sync_batchnorm, revert_sync_batchnorm, synced_class

__all__ = ["ALREADY", "LOSSLESS", "Change", "change_of"]

LOSSLESS = ("frozen", "sync", "batch")
"""The targets that keep the running statistics."""


class Change(NamedTuple):
    """What is to become of a layer.

    Args:
        norm: The layer.
        source: What it was, where it loses its running statistics.
        groups: The number of groups that it gets, if it gets any.
        apply: Makes it that; returns the reason if it turns out to be impossible.
    """

    norm: NormLayer
    source: Source | None
    groups: int | None
    apply: Callable[[], str | None]


def _is_plain(norm: NormLayer) -> bool:
    return norm.kind == "batch" and not isinstance(norm.module, (Frozen, SyncForward, nn.SyncBatchNorm))


ALREADY: dict[str, Callable[[NormLayer], bool]] = {
    "group": lambda norm: norm.kind == "group",
    "layer": lambda norm: norm.kind in ("layer", "channel"),
    "instance": lambda norm: norm.kind == "instance",
    "frozen": lambda norm: isinstance(norm.module, Frozen),
    "sync": lambda norm: isinstance(norm.module, SyncForward),
    "batch": _is_plain,
}
"""Whether a layer is what it is to become, for each target."""


def change_of(norm: NormLayer, to: str, groups: Groups) -> Change | str:
    """Return what is to become of a layer, or why it stays what it is."""
    layer = norm.module
    if to == "frozen":
        return Change(norm, None, None, lambda: _freeze(layer))
    if to == "sync":
        if not isinstance(layer, _BatchNorm):
            return NO_BATCH_NORM
        found = synced_class(layer, base_class(layer))
        return found if isinstance(found, str) else Change(norm, None, None, lambda: _synchronize(layer))
    if to == "batch":
        return _back(norm)
    source = source_of(norm)
    if isinstance(source, str):
        return source
    if to == "group":
        number = num_groups(source.channels, groups, norm.name)
        return Change(norm, source, number, lambda: _to_group(source, number))
    if to == "layer":
        if source.channels == 1:
            return "it has one channel, of which a layer norm over the channels leaves the bias alone"
        return Change(norm, source, None, lambda: _to_layer(source))
    return Change(norm, source, None, lambda: _to_instance(source))


def _back(norm: NormLayer) -> Change | str:
    layer = norm.module
    if isinstance(layer, (Frozen, SyncForward, nn.SyncBatchNorm)):
        return Change(norm, None, None, lambda: _to_batch(layer))
    if isinstance(layer, _InstanceNorm) and running_stats(layer):
        return "its running statistics are averages over samples, and no batch norm's"
    return "it has no running statistics, so it cannot evaluate as a batch norm: build the model anew, and train it"


def _to_batch(layer: nn.Module) -> None:
    if isinstance(layer, Frozen):
        unfreeze(layer)
    revert_sync_batchnorm(layer)


def _freeze(layer: nn.Module) -> str | None:
    left = freeze(layer).left
    return left[0].reason if left else None


def _synchronize(layer: nn.Module) -> None:
    convert_sync_batchnorm(layer)


def _to_group(source: Source, groups: int) -> None:
    attributes = {"num_groups": groups, "num_channels": source.channels, "affine": source.layer.affine}
    _become(source, layers.GroupNorm, nn.GroupNorm, attributes)


def _to_layer(source: Source) -> None:
    attributes = {"normalized_shape": (source.channels,), "elementwise_affine": source.layer.affine}
    _become(source, layers.LayerNorm2d, None, attributes)


def _to_instance(source: Source) -> None:
    layer = source.layer
    kept = {"num_features": source.channels, "momentum": layer.momentum, "affine": layer.affine}
    _become(source, InstanceNorm, None, {**kept, "track_running_stats": False})
    for name in RUNNING_STATE:
        layer.register_buffer(name, None)


_REPLACED = ("num_features", "momentum", "affine", "track_running_stats", "process_group", ORIGINAL, SYNCED_FROM)


def _become(source: Source, ours: type[nn.Module], theirs: type[nn.Module] | None, attributes: dict[str, Any]) -> None:
    """Give a layer the class of ours, or torch's where it was torch's and there is one."""
    layer = source.layer
    own = vars(layer)
    if source.acts:
        ours, theirs = combine(NormAct, ours), None if theirs is None else combine(NormAct, theirs)
    for name in RUNNING_STATE:
        layer._buffers.pop(name, None)
    for name in _REPLACED:
        own.pop(name, None)
    own.update(attributes)
    if source.is_accelerated and theirs is not None:
        own[ORIGINAL] = theirs
    set_base_class(layer, ours if source.is_ours or theirs is None else theirs)
    layer.register_load_state_dict_pre_hook(drop_running_state)
