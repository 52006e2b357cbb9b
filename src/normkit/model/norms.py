"""Which layers of a model are normalization layers: torch.nn's, ours, and those that somebody wrote."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normkit.layers import LayerNorm2d
from normkit.model.classes import base_class
from normkit.model.recipes import recognize

RUNNING: Final = ("running_mean", "running_var")
"""The buffers by which a layer that keeps running statistics is known, whoever wrote it."""

# the first that fits: LayerNorm2d is a LayerNorm
_KINDS: Final = (
    (_BatchNorm, "batch"),
    (_InstanceNorm, "instance"),
    (nn.GroupNorm, "group"),
    (LayerNorm2d, "channel"),
    (nn.LayerNorm, "layer"),
    (nn.RMSNorm, "rms"),
)


class NormLayer(NamedTuple):
    """A normalization layer of a model.

    Args:
        name: Its name in the model; a layer that is used in several places has the first one.
        module: The layer.
        kind: "batch", "instance", "group", "layer", "channel" (LayerNorm2d), "rms"; "own" for one that somebody wrote
            and that does not keep running statistics. One that keeps them is a "batch".
    """

    name: str
    module: nn.Module
    kind: str


def norm_layers(model: nn.Module) -> Iterator[NormLayer]:
    """Yield every normalization layer of a model once, in the order of ``named_modules``.

    Known are the classes of torch.nn and of normkit with their subclasses; any module with buffers ``running_mean`` and
    ``running_var``; and hand-written norms that a recipe describes and that gave equal results on random input.
    """
    for name, module in model.named_modules():
        kind = kind_of(module)
        if kind is not None:
            yield NormLayer(name, module, kind)


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a normalization layer, or None if a module is none."""
    for cls, kind in _KINDS:
        if isinstance(module, cls):
            return kind
    if len(running_stats(module)) == len(RUNNING):
        return "batch"
    found = recognize(module, base_class(module))
    return None if found is None or isinstance(found, str) else "own"


def running_stats(module: nn.Module) -> dict[str, Tensor]:
    """Return the running mean and variance of a layer: both, or nothing."""
    found = {name: module._buffers.get(name) for name in RUNNING}
    present = {name: buffer for name, buffer in found.items() if buffer is not None}
    return present if len(present) == len(RUNNING) else {}
