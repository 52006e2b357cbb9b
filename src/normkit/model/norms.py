"""Which layers of a model are normalization layers: torch.nn's, ours, and those that somebody wrote."""

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Final, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from normkit.errors import UserError
from normkit.layers import LayerNorm2d
from normkit.model.alike import once_per_kind
from normkit.model.classes import base_class, is_patched
from normkit.model.recipe import Recipe
from normkit.model.recipes import recognize

RUNNING: Final = ("running_mean", "running_var")
"""The buffers by which a layer that keeps running statistics is known, whoever wrote it."""

Names = str | Sequence[str]
"""A pattern of names of layers, or several; ``*`` stands for anything, dots too."""

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
    kind_of_like = once_per_kind(kind_of)
    for name, module in model.named_modules():
        kind = kind_of_like(module)
        if kind is not None:
            yield NormLayer(name, module, kind)


def chosen_norms(model: nn.Module, include: Names = "*", exclude: Names = ()) -> list[NormLayer]:
    """Return the normalization layers whose names fit.

    Args:
        model: The model.
        include: Patterns of names, as of files: ``"encoder.*"``; a name has to fit one of them.
        exclude: Patterns of names that are left out.
    Raises:
        UserError: a pattern fits no layer.
    """
    layers = list(norm_layers(model))
    for argument, patterns in (("include", _listed(include)), ("exclude", _listed(exclude))):
        for pattern in patterns:
            if pattern != "*" and not any(fnmatchcase(layer.name, pattern) for layer in layers):
                names = ", ".join(layer.name for layer in layers[:5]) + (", …" if len(layers) > 5 else "")
                raise UserError(
                    f"`{argument}` expects patterns of names of normalization layers; {pattern!r} fits none of "
                    f"{names or 'this model, which has none'}"
                )
    return [layer for layer in layers if _fits(layer.name, include) and not _fits(layer.name, exclude)]


def _listed(names: Names) -> Sequence[str]:
    return (names,) if isinstance(names, str) else names


def _fits(name: str, patterns: Names) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in _listed(patterns))


def kind_of(module: nn.Module) -> str | None:
    """Return the kind of a normalization layer, or None if a module is none."""
    kind = kind_by_class(module)
    if kind is not None:
        return kind
    if len(running_stats(module)) == len(RUNNING):
        return "batch"
    if isinstance(module, Recipe):  # accelerated already
        return "own"
    found = recognize(module, base_class(module))
    return None if found is None or isinstance(found, str) else "own"


def kind_by_class(module: nn.Module) -> str | None:
    """Return the kind of a norm of torch.nn or normkit, or of a subclass; None for every other module."""
    return next((kind for cls, kind in _KINDS if isinstance(module, cls)), None)


def has_known_forward(module: nn.Module) -> bool:
    """Tell whether a batch or instance norm runs the forward pass of torch.nn or normkit, and nobody's own."""
    home = base_class(module).forward.__module__
    is_known = home.startswith(("torch.nn.modules.", "normkit.layers."))
    return is_known and isinstance(module, _BatchNorm | _InstanceNorm) and not is_patched(module)


def channel_axis(module: nn.Module, x: Tensor) -> int:
    """Return the axis of the channels in the input of a layer that keeps running statistics."""
    unbatched = isinstance(module, _InstanceNorm) and x.dim() == module._get_no_batch_dim()  # type: ignore[no-untyped-call]
    return 0 if unbatched else 1


def running_stats(module: nn.Module) -> dict[str, Tensor]:
    """Return the running mean and variance of a layer: both, or nothing."""
    buffers = dict(module.named_buffers(recurse=False))
    return {name: buffers[name] for name in RUNNING} if set(RUNNING) <= set(buffers) else {}
