"""What each normalization layer of a model reduces, for the shapes that flow through it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from normkit.errors import UserError
from normkit.explaining.case import Case
from normkit.explaining.shown import Shown
from normkit.model.files import build_model
from normkit.model.norms import kind_by_class
from normkit.model.preserve import preserved_modes
from normkit.spec import Norm


@dataclass(frozen=True)
class ModelNorm:
    """One normalization layer of a model and one shape that it got.

    Args:
        name: Its name in the model.
        layer: Its class.
        case: What it does with the input; None where it was not called.
        calls: How many times it was called with this shape.
    """

    name: str
    layer: str
    case: Case | None
    calls: int = 0


@dataclass(frozen=True)
class ModelNorms(Shown):
    """The normalization layers of a model.

    Args:
        model: The name of the model's class.
        norms: One entry for each layer and each shape that it got, in the order of the calls.
        unknown: Layers that are called a norm and are none of torch.nn's.
    """

    model: str
    norms: tuple[ModelNorm, ...]
    unknown: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        return {"model": self.model, "norms": [_as_dict(norm) for norm in self.norms], "unknown": list(self.unknown)}


@dataclass
class _Seen:
    """The shapes that each layer got, with the number of calls, in the order of the first call."""

    shapes: dict[tuple[str, tuple[int, ...]], int] = field(default_factory=dict)

    def hook(self, name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            key = name, tuple(inputs[0].shape)
            self.shapes[key] = self.shapes.get(key, 0) + 1

        return note


def norms_of(model: nn.Module, *inputs: Any) -> ModelNorms:
    """Run a model once and list its normalization layers, with what each of them reduces.

    The model runs in evaluation mode, without gradients; modes and hooks are put back.

    Args:
        model: The model.
        inputs: What it is called with.
    Raises:
        UserError: the model cannot be called with these inputs.
    """
    layers = {name: module for name, module in model.named_modules() if kind_by_class(module)}
    seen = _Seen()
    with preserved_modes(model), torch.no_grad():
        model.eval()
        handles = [layer.register_forward_pre_hook(seen.hook(name)) for name, layer in layers.items()]
        try:
            model(*inputs)
        except Exception as error:
            shapes = ", ".join(str(tuple(x.shape)) if isinstance(x, Tensor) else type(x).__name__ for x in inputs)
            raise UserError(
                f"{type(model).__name__} raised {type(error).__name__} when called with an input of shape {shapes}: "
                f"{error}. Give a `shape` that it takes, or let the function return the model and an example"
            ) from error
        finally:
            for handle in handles:
                handle.remove()
    called = {name for name, _ in seen.shapes}
    norms = [
        ModelNorm(name, type(layers[name]).__name__, case_of_layer(layers[name], shape), calls)
        for (name, shape), calls in seen.shapes.items()
    ]
    norms += [ModelNorm(name, type(layer).__name__, None) for name, layer in layers.items() if name not in called]
    return ModelNorms(type(model).__name__, tuple(norms), tuple(_unknown(model, layers)))


def norms_of_target(target: Any, shape: Sequence[int] | None = None) -> ModelNorms:
    """List the normalization layers of a model that somebody's code makes.

    Args:
        target: A model, or a function or class that makes one when it is called without arguments. A function may
            also return the model and an input, or a tuple of inputs.
        shape: The shape of a random input, where the function returns none.
    Raises:
        UserError: it makes no model, or the model cannot be called.
    """
    model, inputs = build_model(target)
    if inputs:
        return norms_of(model, *inputs)
    if shape is None:
        raise UserError(
            f"the input of {type(model).__name__} is not known: give its `shape`, or let the function return the model "
            "and an input"
        )
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    with torch.random.fork_rng(devices=[]):
        return norms_of(model, torch.randn(tuple(shape), dtype=dtype))


def case_of_layer(layer: nn.Module, shape: Sequence[int]) -> Case:
    """Return what a layer of torch.nn does with an input of this shape."""
    shape, kind = tuple(shape), kind_by_class(layer)
    if kind is None:
        raise ValueError(f"expected a norm of torch.nn; got {type(layer).__name__}")
    if kind == "group":
        return Case(Norm("group", num_groups=int(layer.num_groups)), shape)  # type: ignore[arg-type]
    if kind not in ("layer", "rms"):
        return Case(Norm(kind), shape)
    sizes = tuple(int(size) for size in layer.normalized_shape)  # type: ignore[union-attr]
    if _normalizes_axis_1(layer, sizes, shape):
        return Case(Norm("channel"), shape)
    is_last_alone = len(sizes) == 1 and len(shape) > 2
    return Case(Norm("layer", subtract_mean=kind == "layer", normalized_shape=sizes), shape, is_last_alone)


def _normalizes_axis_1(layer: nn.Module, sizes: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether a subclass of LayerNorm works on the channels of images, as torchvision's and timm's LayerNorm2d do."""
    is_of_images = len(sizes) == 1 and len(shape) == 4 and shape[1] == sizes[0]
    return is_of_images and (shape[-1] != sizes[0] or type(layer).__name__.endswith("2d"))


def _unknown(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[str]:
    for name, module in model.named_modules():
        called_norm = "norm" in type(module).__name__.lower() and not list(module.children())
        if called_norm and name not in layers:
            yield f"{type(module).__name__} as {name!r}"


def _as_dict(norm: ModelNorm) -> dict[str, Any]:
    tree: dict[str, Any] = {"name": norm.name, "class": norm.layer, "calls": norm.calls}
    if norm.case is None:
        return tree
    case = norm.case
    return {
        **tree,
        "axes": list(case.axes),
        "shape": list(case.shape),
        "reduced": list(case.reduced),
        "means": case.num_sets,
        "count": case.count,
        "weight_shape": list(case.weight_shape),
        "weights": math.prod(case.weight_shape),
    }
