"""Values for arguments that have no default and whose names tell nothing: the likeliest first."""

import inspect
import itertools
from collections.abc import Iterator
from typing import Any

from normkit.checking.target.geometry import Geometry
from normkit.checking.target.made import Made
from normkit.checking.target.names import role_of, words_of
from normkit.checking.target.signature import Signature
from normkit.checking.target.state import ROLES

Filling = tuple[tuple[str, Any], ...]
"""A value for each of some arguments."""

_MOST = 60
_FLAGS = {"affine", "bias", "weight", "scale", "shift", "center", "use", "is", "has", "track", "learnable", "trainable"}
_FLAGS |= {"elementwise", "enable", "with", "gamma", "beta", "train", "training"}
_MASKS = {"mask", "masks", "valid", "padding", "pad", "attention", "weights"}
_LABELS = {"label", "labels", "class", "classes", "cls", "cond", "condition", "domain", "target", "targets", "idx"}
_LABELS |= {"index", "y", "ids", "id", "c", "task", "segment"}
_STYLES = {"style", "styles", "code", "latent", "z", "emb", "embedding", "t", "time", "s", "w", "noise", "context"}


def for_constructor(signature: Signature, names: list[str], geometry: Geometry) -> Iterator[Filling]:
    """Yield values for arguments of a constructor."""
    yield from _products(names, [_of_constructor(signature.parameters[name], geometry) for name in names])


def for_call(signature: Signature, names: list[str], words: list[str], geometry: Geometry) -> Iterator[Filling]:
    """Yield values for arguments of a call.

    Args:
        signature: The arguments of the call.
        names: Those without a value.
        words: The strings in the code.
        geometry: The axes of the input.
    """
    yield from _products(names, [_of_call(signature.parameters[name], words, geometry) for name in names])


def _products(names: list[str], values: list[list[Any]]) -> Iterator[Filling]:
    for filling in itertools.islice(itertools.product(*values), _MOST):
        yield tuple(zip(names, filling, strict=True))


def _of_constructor(parameter: inspect.Parameter, geometry: Geometry) -> list[Any]:
    size = geometry.features[0]
    role = role_of(parameter.name)
    if role in ROLES and parameter.annotation not in (bool, "bool"):
        kind = "ones" if role in ("weight", "running_var") else "zeros"
        return [Made(kind, ("C",)), True, 1.0]
    if parameter.annotation in (bool, "bool") or words_of(parameter.name) & _FLAGS:
        return [True, False, 1.0]
    if parameter.annotation in (float, "float"):
        return [1.0, 0.1, 0.0]
    if parameter.annotation in (str, "str"):
        return ["train", "relu", "none"]
    return [size, True, 1, 1.0, None]


def _of_call(parameter: inspect.Parameter, words: list[str], geometry: Geometry) -> list[Any]:
    named = words_of(parameter.name)
    if parameter.annotation in (bool, "bool"):
        return [True, False]
    masks: list[Any] = [Made("ones"), Made("mask"), Made("ones", ("N", "L")), Made("mask", ("N", "L"))]
    masks += [Made("ones", ("N", "1", "L")), Made("ones", ("N", "L", "1")), Made("mask", ("N", "1", "L"))]
    masks += [Made("ones", ("N", "H", "W")), Made("ones", ("N", "1", "H", "W")), Made("ones", ("N",))]
    labels: list[Any] = [Made("randint", None, 2), Made("randint", None, 1), 0]
    styles: list[Any] = [Made("randn", ("N", "C")), Made("randn"), Made("randn", ("N", "12"))]
    plain: list[Any] = [geometry.features[0], True, 1.0, 1, *words[:4]]
    arrays: list[Any] = [Made("ones", ("C",))]
    if named & _MASKS:
        return [*masks, *plain]
    if named & _LABELS:
        return [*labels, *styles, *masks[:2], *plain]
    if named & _STYLES:
        return [*styles, *labels, *masks[:2], *plain]
    if words_of(parameter.name) & _FLAGS:
        return [True, *arrays, *plain]
    return [*arrays, *masks[:2], *labels[:1], *styles[:1], *plain]
