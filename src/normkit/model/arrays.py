"""The forms in which libraries hold arrays by name: flat or nested, tensors or NumPy."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from normkit.errors import UserError

__all__ = ["as_given_to", "flat_arrays", "nested", "separator"]

_SLASHES: Final = ("keras", "flax")
_COLLECTIONS: Final = ("params", "batch_stats")


def separator(library: str) -> str:
    """Return what stands between the parts of a name."""
    return "/" if library in _SLASHES else "."


def flat_arrays(state: Any, library: str) -> dict[tuple[str, ...], Any]:
    """Return the arrays of a state by their path; the last part is the array's own name.

    Raises:
        UserError: it holds something else than arrays.
    """
    if library == "keras" and not isinstance(state, Mapping):
        state = _by_path(state)
    if not isinstance(state, Mapping):
        raise UserError(f"port expected a mapping of names to arrays; got {type(state).__name__}")
    flat: dict[tuple[str, ...], Any] = {}
    for full, value in _walk(state, library):
        in_collection = library == "flax" and len(full) > 1 and full[0] in _COLLECTIONS
        path = full[1:] if in_collection else full
        if path in flat:
            raise UserError(f"port found two arrays of the name {separator(library).join(path)}")
        flat[path] = _array(path, value)
    return flat


def _by_path(variables: Any) -> dict[str, Any]:
    """Return Keras' variables by their path."""
    if not isinstance(variables, Sequence) or not all(hasattr(one, "path") for one in variables):
        raise UserError(
            "port expected Keras' variables with their names: model.weights, or {w.path: w.numpy() for w in "
            "model.weights}; the arrays of get_weights() have none"
        )
    return {one.path: one for one in variables}


def _walk(state: Any, library: str, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(state, Mapping):
        for key, value in state.items():
            yield from _walk(value, library, (*path, *_parts(key, library)))
    elif isinstance(state, list | tuple):
        for number, value in enumerate(state):
            yield from _walk(value, library, (*path, str(number)))
    else:
        yield path, state


def _parts(key: Any, library: str) -> tuple[str, ...]:
    if isinstance(key, tuple):
        return tuple(map(str, key))
    text = str(key).removesuffix(":0")  # as TensorFlow called its variables
    if library == "onnx":  # the name of a node may have dots of its own
        return tuple(filter(None, text.rpartition(".")[::2]))
    return tuple(text.split(separator(library)))


def _array(path: tuple[str, ...], value: Any) -> Any:
    """Return an array of NumPy or a tensor."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ma.MaskedArray):
        raise UserError(
            f"port expected plain arrays; {'/'.join(path)} is a MaskedArray, whose mask would be lost: fill it"
        )
    array = np.asarray(value)
    if array.dtype.kind == "V" or (array.dtype.kind not in "fiub" and hasattr(value, "dtype")):
        array = np.asarray(value, dtype=np.float32)  # bfloat16, which NumPy has no name for
    if array.dtype.kind not in "fiub":
        raise UserError(f"port expected arrays; {'/'.join(path)} is a {type(value).__name__}")
    return array


def nested(layers: Iterable[tuple[str, Mapping[str, Any]]], library: str) -> dict[str, Any]:
    """Return the arrays of layers as a library holds them: flat, but for Flax' collections and ONNX' nodes."""
    tree: dict[str, Any] = {}
    for layer, arrays in layers:
        for name, array in arrays.items():
            if library == "flax":
                collection = tree.setdefault("batch_stats" if name in ("mean", "var") else "params", {})
                for part in filter(None, layer.split("/")):
                    collection = collection.setdefault(part, {})
                collection[name] = array
            elif library == "onnx":
                tree.setdefault(layer, {})[name] = array
            else:
                tree[separator(library).join(filter(None, (layer, name)))] = array
    return tree


def as_given_to(tree: Mapping[str, Any], library: str) -> dict[str, Any]:
    """Return arrays that are copies: tensors for torch, NumPy's for the others."""
    return {
        key: as_given_to(value, library)
        if isinstance(value, Mapping)
        else (_tensor(value) if library == "torch" else _numpy(value))
        for key, value in tree.items()
    }


def _tensor(value: Any) -> Tensor:
    return value.clone() if isinstance(value, Tensor) else torch.from_numpy(np.array(value))


def _numpy(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return np.array(value)
    return (value.float() if value.dtype is torch.bfloat16 else value).cpu().numpy().copy()
