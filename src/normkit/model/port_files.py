"""Files of arrays for the port: NumPy's, safetensors, torch's and the norms of an ONNX graph."""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from zipfile import BadZipFile

import numpy as np
import torch

from normkit.errors import UserError
from normkit.files import write_atomic
from normkit.model.arrays import separator
from normkit.model.files import WEIGHTS, check_new, read_state, write_tensors

__all__ = ["check_new_arrays", "read_arrays", "write_arrays"]

_NUMPY: Final = ".npz"
_ONNX: Final = ".onnx"
_ROLES: Final = {
    "BatchNormalization": ("scale", "B", "input_mean", "input_var"),
    "InstanceNormalization": ("scale", "B"),
    "GroupNormalization": ("scale", "B"),
    "LayerNormalization": ("scale", "B"),
    "RMSNormalization": ("scale",),
}
"""What the inputs of each operator are after the first."""


def read_arrays(path: Path) -> dict[str, Any]:
    """Read arrays by name: .npz, .safetensors, .pt, .pth, .bin; of .onnx the inputs of each norm, by its name.

    Raises:
        UserError: another ending, no such file, or damage.
    """
    if path.suffix in WEIGHTS:
        return dict(read_state(path))
    if path.suffix not in (_NUMPY, _ONNX):
        raise UserError(f"expected arrays in {', '.join((*WEIGHTS, _NUMPY))} or {_ONNX}; got {path}")
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a file of arrays")
    if path.suffix == _ONNX:
        return _norms_of_graph(path)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, BadZipFile) as error:
        raise UserError(f"cannot read {path} as arrays that numpy.savez wrote: {error}") from None


def check_new_arrays(path: Path, *, force: bool) -> Path:
    """Return a path that arrays may be written to: .npz, .safetensors, .pt, .pth or .bin.

    Raises:
        UserError: see :func:`normkit.model.files.check_new`.
    """
    return check_new(path, force=force, endings=(*WEIGHTS, _NUMPY))


def write_arrays(state: Mapping[str, Any], library: str, path: Path, *, force: bool) -> None:
    """Write arrays by name; nested ones get the names of the library with "/" or "." between the parts.

    Raises:
        UserError: see :func:`check_new_arrays`; or the file cannot be written.
    """
    check_new_arrays(path, force=force)
    flat = dict(_flat(state, separator(library)))
    if path.suffix != _NUMPY:
        tensors = {name: torch.as_tensor(array) for name, array in flat.items()}
        write_tensors(tensors, path, force=force)
        return
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in flat.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    write_atomic(path, buffer.getvalue())


def _flat(state: Mapping[str, Any], between: str, before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in state.items():
        name = f"{before}{between}{key}" if before else key
        if isinstance(value, Mapping):
            yield from _flat(value, between, name)
        else:
            yield name, value


def _norms_of_graph(path: Path) -> dict[str, Any]:
    """Return the arrays of each norm of an ONNX graph, under the name that its arrays share, or that of the node."""
    try:
        import onnx
    except ModuleNotFoundError:
        raise UserError(f"reading {path} needs onnx: pip install onnx") from None
    try:
        graph = onnx.load(path).graph
    except Exception as error:  # protobuf names no base for damage
        raise UserError(f"cannot read {path} as an ONNX model ({type(error).__name__})") from None
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            constants[node.output[0]] = node.attribute[0].t
    found: dict[str, Any] = {}
    for number, node in enumerate(graph.node):
        names = node.input[1:]
        if node.op_type in _ROLES and names and all(name in constants for name in names if name):
            layer = _shared_name(names) or node.name or f"{node.op_type}_{number}"
            roles = zip(_ROLES[node.op_type], names, strict=False)
            found[layer] = {role: onnx.numpy_helper.to_array(constants[name]) for role, name in roles if name}
    return found


def _shared_name(names: Sequence[str]) -> str:
    """Return what stands before the last dot of all names, as torch's export writes them: "" if they differ."""
    before = {name.rpartition(".")[0] for name in names if name}
    return before.pop() if len(before) == 1 else ""
