"""The run folder. Every file in it is whole at any moment: written to a temporary name, then renamed."""

import io
import json
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch

from normkit.errors import UserError
from normkit.files import remove_partial, write_atomic
from normkit.train.config import TrainConfig

CONFIG: Final = "config.json"
CHECKPOINT_FORMAT: Final = 2


def write(path: Path, content: bytes) -> None:
    """Replace a file of a run by ``content``, or leave it as it was and raise ``UserError``."""
    advice = "what was written before is whole; make room or give access, then go on with `resume`"
    write_atomic(path, content, advice)


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """Write ``tree`` as readable JSON."""
    write(path, (json.dumps(tree, indent=2, allow_nan=False) + "\n").encode())


@dataclass(frozen=True)
class Inputs:
    """What a run was made from; a resumed run needs the same.

    Args:
        config: The options.
        data_sha256: The fingerprint of the images.
        layers_sha256: Of the files of somebody's own layers, by target.
    """

    config: TrainConfig
    data_sha256: str
    layers_sha256: dict[str, str] = field(default_factory=dict)


def create(path: Path, inputs: Inputs) -> None:
    """Make a new run folder; an existing one is taken only if it is empty, or a killed run left no whole file in it.

    Args:
        path: The folder.
        inputs: What the run is made from.
    Raises:
        UserError: there is something already, or the folder cannot be written.
    """
    if (path / CONFIG).exists():
        raise UserError(
            f"{path} already holds a run: go on with it (`resume`), name another folder with `out`, or remove it"
        )
    existed = path.is_dir()
    try:
        path.mkdir(parents=True, exist_ok=True)
        remove_partial(path)
        if any(path.iterdir()):
            raise UserError(f"{path} is not empty: name a new or an empty folder with `out`")
    except OSError as error:
        raise UserError(f"cannot write to the folder {path}: {error.strerror}. Name another one with `out`") from error
    try:
        write_config(path, inputs)
    except UserError:
        if not existed:
            path.rmdir()
        raise


def write_config(path: Path, inputs: Inputs) -> None:
    """Write what a run is made from, and by which versions."""
    versions = {"normkit": version("normkit"), "torch": torch.__version__}
    prints = {"data_sha256": inputs.data_sha256, "layers_sha256": inputs.layers_sha256}
    write_json(path / CONFIG, {"options": inputs.config.to_json(), **prints, "versions": versions})


def read_config(path: Path) -> Inputs:
    """Return what the run in ``path`` was made from."""
    file = path / CONFIG
    if not file.is_file():
        raise UserError(f"{path} holds no run to resume (no {CONFIG} there): give the folder that a run wrote to")
    try:
        tree = json.loads(file.read_text())
        config = TrainConfig.from_json(tree["options"])
        return Inputs(config, str(tree["data_sha256"]), dict(tree["layers_sha256"]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{file} is not the configuration of a run ({error}): start a new run") from error


def checkpoint_path(path: Path, label: str) -> Path:
    """Return the path of the state of a contender's training."""
    return path / f"checkpoint-{label}.pt"


def save_checkpoint(path: Path, label: str, state: dict[str, Any]) -> None:
    """Write ``state``: tensors, numbers, strings, lists and dictionaries."""
    buffer = io.BytesIO()
    torch.save({"format": CHECKPOINT_FORMAT, **state}, buffer)
    write(checkpoint_path(path, label), buffer.getvalue())


def load_checkpoint(path: Path, label: str) -> dict[str, Any] | None:
    """Return the state that ``save_checkpoint`` wrote, or None if this contender has none yet."""
    file = checkpoint_path(path, label)
    if not file.exists():
        return None
    advice = f"remove it to train {label!r} again from the start"
    try:
        state = torch.load(file, weights_only=True)
    except Exception as error:  # torch names no common base: zip, pickle, key and runtime errors all mean damage
        raise UserError(f"{file} is damaged ({type(error).__name__}): {advice}") from error
    if not isinstance(state, dict) or state.get("format") != CHECKPOINT_FORMAT:
        raise UserError(f"{file} is not a checkpoint of this version of normkit: {advice}")
    return state
