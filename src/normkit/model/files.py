"""Models, weights and data that a command line names: built, read and written, and nothing trusted."""

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from normkit.errors import UserError
from normkit.extras import require
from normkit.files import require_place, write_atomic

SAFETENSORS: Final = ".safetensors"
PICKLES: Final = (".pt", ".pth", ".bin")
WEIGHTS: Final = (SAFETENSORS, *PICKLES)
"""The endings of files of weights."""
_NESTED: Final = ("state_dict", "model", "model_state_dict", "module")
"""The keys under which checkpoints keep a model's state among other things."""

State = dict[str, Tensor]


def build_model(target: Any) -> tuple[nn.Module, tuple[Any, ...]]:
    """Return the model that somebody's code makes, and the inputs that came with it.

    Args:
        target: A model, or a function or class that makes one when it is called without arguments. A function may
            also return the model and an input, or a tuple of inputs.
    Raises:
        UserError: it makes no model.
    """
    name = getattr(target, "__name__", type(target).__name__)
    made = target
    if not isinstance(target, nn.Module):
        try:
            made = target()
        except Exception as error:
            raise UserError(
                f"{name}() raised {type(error).__name__}: {error}. It is called without arguments"
            ) from error
    model, *inputs = made if isinstance(made, tuple) and made else (made,)
    if not isinstance(model, nn.Module):
        raise UserError(f"{name}() must return a torch.nn.Module, or it and an input; got {type(model).__name__}")
    return model, inputs[0] if inputs and isinstance(inputs[0], tuple) else tuple(inputs)


def read_state(path: Path) -> State:
    """Read a state dict: .safetensors, or .pt, .pth, .bin without code in it.

    A checkpoint that keeps it under "state_dict", "model", "model_state_dict" or "module" is opened.

    Raises:
        UserError: no such file, another ending, a pickle that could run code, damage, or no state dict in it.
    """
    if path.suffix not in WEIGHTS:
        raise UserError(f"expected weights in {SAFETENSORS} or {', '.join(PICKLES)}; got {path}")
    if not path.is_file():
        raise UserError(f"{path} does not exist: name a file of weights")
    if path.suffix == SAFETENSORS:
        require(f"reading {path}", "cli", "safetensors")
    try:
        if path.suffix == SAFETENSORS:
            from safetensors.torch import load

            tree: Any = load(path.read_bytes())
        else:
            tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and safetensors name no common base for damage
        raise UserError(
            f"cannot read {path} as weights alone ({type(error).__name__}): a pickle that holds more than tensors "
            "could run code and is refused; save model.state_dict()"
        ) from error
    for key in _NESTED:
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
    if not isinstance(tree, dict) or not tree or not all(isinstance(value, Tensor) for value in tree.values()):
        raise UserError(f"{path} holds no state dict: save model.state_dict()")
    return tree


def load_weights(model: nn.Module, path: Path) -> None:
    """Load weights into a model; all of them must fit.

    Raises:
        UserError: they cannot be read, or do not fit.
    """
    state = read_state(path)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        first = str(error).splitlines()
        raise UserError(
            f"the weights in {path} do not fit {type(model).__name__}: {' '.join(first[1:3]).strip()}"
        ) from None


def check_new(path: Path, *, force: bool, endings: tuple[str, ...] = WEIGHTS) -> Path:
    """Return a path that a file of these endings may be written to.

    Raises:
        UserError: another ending, no such folder, a package is missing, or a file would be overwritten without
            ``force``.
    """
    require_place(path, endings)
    if path.suffix == SAFETENSORS:
        require(f"writing {path}", "cli", "safetensors")
    if path.exists() and not force:
        raise UserError(f"{path} exists: name another file, or give `force` to overwrite it")
    return path


def write_state(model: nn.Module, path: Path, *, force: bool = False) -> None:
    """Write the state dict of a model; the file is whole, or as it was.

    Raises:
        UserError: see :func:`check_new`; or the file cannot be written.
    """
    write_tensors(model.state_dict(), path, force=force)


def write_tensors(tensors: Mapping[str, Tensor], path: Path, *, force: bool = False) -> None:
    """Write tensors by name; the file is whole, or as it was.

    Raises:
        UserError: see :func:`check_new`; or the file cannot be written.
    """
    check_new(path, force=force)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    if path.suffix == SAFETENSORS:
        from safetensors.torch import save

        copied = {name: tensor.clone() for name, tensor in state.items()}  # it refuses tensors that share memory
        write_atomic(path, save(copied))
        return
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(path, buffer.getvalue())


def read_array(path: Path) -> NDArray[Any]:
    """Read one array that ``numpy.save`` wrote; pickles are not opened.

    Raises:
        UserError: it is no such file, or one of several arrays.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"expected an array as numpy.save writes it; cannot read {path}: {error}") from None
    if not isinstance(array, np.ndarray):
        raise UserError(f"expected one array, as numpy.save writes it; {path} holds several (numpy.savez)")
    return array


def read_data(path: Path, batch_size: int) -> list[Tensor]:
    """Read an array of inputs that ``numpy.save`` wrote, as batches.

    Args:
        path: An array whose first axis are the samples.
        batch_size: Samples a batch.
    Raises:
        UserError: it is no such file.
    """
    array = read_array(path)
    if array.ndim == 0 or not len(array):
        raise UserError(f"expected an array of samples in {path}; got shape {array.shape}")
    samples = torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array)
    return list(torch.split(samples, batch_size))


def iterable_of(target: Any) -> Iterable[Any]:
    """Return the batches that somebody's code makes: an iterable, or what a function returns."""
    found = target() if callable(target) and not hasattr(target, "__iter__") else target
    if not hasattr(found, "__iter__"):
        raise UserError(f"expected a loader, or a function that returns one; got {type(found).__name__}")
    return found  # type: ignore[no-any-return]
