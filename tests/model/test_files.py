"""Models, weights and data that a command line names."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from normkit.errors import UserError
from normkit.model.files import build_model, iterable_of, load_weights, read_data, read_state, write_state


def model() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
def test_weights_go_to_a_file_and_back(suffix: str, tmp_path: Path) -> None:
    one, other, path = model(), model(), tmp_path / f"w{suffix}"
    one(torch.randn(5, 3))
    write_state(one, path)
    load_weights(other, path)
    for name, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_share_memory_are_written(suffix: str, tmp_path: Path) -> None:
    tied: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    write_state(tied, tmp_path / f"w{suffix}")
    assert torch.equal(read_state(tmp_path / f"w{suffix}")["1.weight"], tied[0].weight)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict"])
def test_a_checkpoint_of_more_than_weights_is_opened(key: str, tmp_path: Path) -> None:
    torch.save({"epoch": 3, key: model().state_dict()}, tmp_path / "c.pt")
    load_weights(model(), tmp_path / "c.pt")


def test_no_file_is_overwritten_without_force(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists: name another file, or give `force`"):
        write_state(model(), path)
    assert path.read_bytes() == b"mine"
    write_state(model(), path, force=True)
    assert read_state(path)


class Runs:
    def __reduce__(self) -> Any:
        return print, ("this would be code",)


def test_a_pickle_that_could_run_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"a": Runs()}, tmp_path / "a.pt")
    (tmp_path / "b.pth").write_bytes(pickle.dumps(Runs()))
    for name in ("a.pt", "b.pth"):
        with pytest.raises(UserError, match="could run code and is refused"):
            read_state(tmp_path / name)
    assert "this would be code" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("w.npz", b"", "expected weights in .safetensors or .pt, .pth, .bin"),
        ("no.pt", None, "does not exist"),
        ("w.safetensors", b"\x00" * 20, "cannot read"),
        ("w.pt", b"PK", "cannot read"),
    ],
)
def test_what_holds_no_weights_is_refused(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_state(tmp_path / name)


def test_weights_of_another_model_are_named(tmp_path: Path) -> None:
    write_state(nn.Linear(3, 4), tmp_path / "w.pt")
    with pytest.raises(UserError, match="do not fit Sequential: Missing key"):
        load_weights(model(), tmp_path / "w.pt")
    torch.save([1, 2], tmp_path / "l.pt")
    with pytest.raises(UserError, match="holds no state dict"):
        read_state(tmp_path / "l.pt")


def test_a_model_may_bring_its_inputs() -> None:
    x = torch.zeros(2, 3)
    assert build_model(model)[1] == ()
    assert build_model(lambda: (model(), x))[1][0] is x
    assert build_model(lambda: (model(), (x, x)))[1] == (x, x)


def test_data_comes_from_arrays_and_loaders(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(10.0).reshape(5, 2))
    assert [tuple(batch.shape) for batch in read_data(tmp_path / "x.npy", 2)] == [(2, 2), (2, 2), (1, 2)]
    assert read_data(tmp_path / "x.npy", 2)[0].dtype is torch.float32
    assert list(iterable_of(lambda: [1, 2])) == [1, 2]
    assert list(iterable_of([1, 2])) == [1, 2]
    for bad in (3, lambda: 3):
        with pytest.raises(UserError, match="expected a loader"):
            iterable_of(bad)
    with pytest.raises(UserError, match=r"numpy\.save"):
        read_data(tmp_path / "no.npy", 2)
