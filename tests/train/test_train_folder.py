"""The run folder: whole files or none, and clear words for folders that are something else."""

import errno
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest
import torch

from normkit.errors import UserError
from normkit.train import TrainConfig, folder


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    target = tmp_path / "metrics.csv"
    folder.write(target, b"old")

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, failing, full)
    with pytest.raises(UserError, match=r"cannot write .*metrics\.csv: No space left on device.*`resume`"):
        folder.write(target, b"new and longer")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.csv"]


def test_an_interrupt_while_writing_leaves_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        folder.write(tmp_path / "curves.png", b"picture")
    assert list(tmp_path.iterdir()) == []


def test_create_takes_a_new_or_an_empty_folder(tmp_path: Path) -> None:
    config = TrainConfig()
    inputs = folder.Inputs(config, "sum", {"layers.py:Mine": "other"})
    folder.create(tmp_path, inputs)
    folder.create(tmp_path / "deep" / "er", inputs)
    assert folder.read_config(tmp_path / "deep" / "er") == inputs


def test_create_refuses_what_holds_a_run_or_anything_else(tmp_path: Path) -> None:
    inputs = folder.Inputs(TrainConfig(), "sum")
    folder.create(tmp_path / "run", inputs)
    with pytest.raises(UserError, match=r"already holds a run.*`resume`"):
        folder.create(tmp_path / "run", inputs)
    with pytest.raises(UserError, match="is not empty"):
        folder.create(tmp_path, inputs)


def test_a_run_that_was_killed_while_it_began_leaves_a_folder_to_begin_in(tmp_path: Path) -> None:
    inputs = folder.Inputs(TrainConfig(), "sum")
    (tmp_path / f".{folder.CONFIG}.4711.part").write_text('{"opt')
    folder.create(tmp_path, inputs)
    assert folder.read_config(tmp_path) == inputs
    assert [path.name for path in tmp_path.iterdir()] == [folder.CONFIG]


def test_create_refuses_a_place_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match=r"cannot write to the folder .* Name another one with `out`"):
            folder.create(place, folder.Inputs(TrainConfig(), "sum"))

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        folder.create(tmp_path / "run", folder.Inputs(TrainConfig(), "sum"))
    assert not (tmp_path / "run").exists()


SPOILT: tuple[object, ...] = ([[]], {"a": []}, -1, 1e400)


def spoilt(**options: object) -> str:
    """A configuration with other options."""
    tree = {"options": {**TrainConfig().to_json(), **options}, "data_sha256": "", "layers_sha256": {}}
    return json.dumps(tree)


@pytest.mark.parametrize(
    "content",
    [
        "not json", "[]", "{}", '{"options": {}, "data_sha256": ""}', "null", "\x00", "[" * 100_000, '"text"',
        '{"options": 5, "data_sha256": "", "layers_sha256": {}}',
        spoilt().replace('"layers_sha256": {}', '"layers_sha256": 5'),
        *(spoilt(**{name: value}) for name in TrainConfig().to_json() for value in SPOILT),
    ],
)  # fmt: skip
def test_a_configuration_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(UserError, match="holds no run to resume"):
        folder.read_config(tmp_path)
    (tmp_path / folder.CONFIG).write_text(content)
    with pytest.raises(UserError, match="is not the configuration of a run"):
        folder.read_config(tmp_path)


def test_a_run_of_an_older_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder.create(tmp_path, folder.Inputs(TrainConfig(), "sum"))
    tree = json.loads((tmp_path / folder.CONFIG).read_text())
    tree["options"]["impl"] = tree["options"].pop("impls")[0]
    (tmp_path / folder.CONFIG).write_text(json.dumps(tree))
    with pytest.raises(UserError, match=r"not those of this version of normkit.*start a new run"):
        folder.read_config(tmp_path)


def test_checkpoints_come_back_without_unpickling(tmp_path: Path) -> None:
    assert folder.load_checkpoint(tmp_path, "batch") is None
    folder.save_checkpoint(
        tmp_path, "batch", {"model": {"weight": torch.arange(3)}, "result": {"epochs": [{"a": 0.1}]}}
    )
    state = folder.load_checkpoint(tmp_path, "batch")
    assert state is not None
    assert torch.equal(state["model"]["weight"], torch.arange(3))
    assert state["result"] == {"epochs": [{"a": 0.1}]}


@pytest.mark.parametrize("kind", ["cut", "text", "other", "code"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, kind: str) -> None:
    folder.save_checkpoint(tmp_path, "batch", {"model": {"weight": torch.zeros(1000)}})
    path = folder.checkpoint_path(tmp_path, "batch")
    match kind:
        case "cut":
            path.write_bytes(path.read_bytes()[:2000])
        case "text":
            path.write_text("hello")
        case "other":
            torch.save({"weight": torch.zeros(2)}, path)
        case "code":
            torch.save({"format": 2, "path": Path("x")}, path)
    with pytest.raises(UserError, match=r"checkpoint-batch\.pt is .* remove it to train 'batch' again"):
        folder.load_checkpoint(tmp_path, "batch")
