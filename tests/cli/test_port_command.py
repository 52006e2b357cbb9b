"""``normkit port`` and ``normkit conventions``."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from normkit.model.port_files import read_arrays
from tests.cli.test_help import run


def weights(folder: Path) -> Path:
    file = folder / "weights.npz"
    arrays = {f"net/bn/{name}": np.arange(3.0) + 1 for name in ("gamma", "beta", "moving_mean", "moving_variance")}
    np.savez(file, **{**arrays, "net/dense/kernel": np.ones((3, 3))})  # type: ignore[arg-type]
    return file


def test_arrays_are_written_under_their_new_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "norms.safetensors"
    arguments = ("port", str(weights(tmp_path)), "--source", "keras", "--to", "torch", "--out", str(out))
    code, printed, err = run(monkeypatch, capsys, *arguments, "--name", "net/bn=features.1", "--count", "4")
    assert code == 0
    assert "net/bn -> features.1 (batch): build it with eps=0.001, momentum=0.01" in printed
    assert "left 1 array: net/dense/kernel: it is no norm's" in printed
    assert f"written: {out}" in err
    state = read_arrays(out)
    assert set(state) == {f"features.1.{name}" for name in ("weight", "bias", "running_mean", "running_var")}
    torch.testing.assert_close(state["features.1.running_var"], (torch.arange(3.0) + 1).double() * 4 / 3)

    code, _, err = run(monkeypatch, capsys, *arguments)
    assert code == 2
    assert "give --force to overwrite it" in err


@pytest.mark.parametrize("ending", [".npz", ".pt", ".safetensors"])
@pytest.mark.parametrize("library", ["flax", "keras", "mlx", "onnx"])
def test_every_library_in_every_file_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], library: str, ending: str
) -> None:
    there, back = tmp_path / f"there{ending}", tmp_path / "back.npz"
    first = ("port", str(weights(tmp_path)), "--source", "keras", "--to", library, "--out", str(there))
    assert run(monkeypatch, capsys, *first).code == 0
    second = ("port", str(there), "--source", library, "--to", "keras", "--out", str(back), "--format", "json")
    code, printed, _ = run(monkeypatch, capsys, *second)
    assert code == 0
    assert json.loads(printed)["source"] == library
    original, copied = read_arrays(weights(tmp_path)), read_arrays(back)
    assert {name.replace(".", "/") for name in copied} == set(original) - {"net/dense/kernel"}
    for name, array in copied.items():
        np.testing.assert_array_equal(array, original[name.replace(".", "/")])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["missing.npz", "--source", "keras", "--to", "torch"], "missing.npz does not exist"),
        (["weights.h5", "--source", "keras", "--to", "torch"], "expected arrays in .safetensors"),
        (["broken.npz", "--source", "keras", "--to", "torch"], "cannot read broken.npz"),
        (["weights.npz", "--source", "jax", "--to", "torch"], "--source must be one of torch, keras"),
        (["weights.npz", "--source", "torch", "--to", "keras"], "found no norm among the arrays"),
        (["weights.npz", "--source", "keras", "--to", "torch", "--name", "x"], "--name expects two names with ="),
        (["weights.npz", "--source", "keras", "--to", "torch", "--name", "a=b"], "--name names 'a', which is no norm"),
        (["weights.npz", "--source", "keras", "--to", "torch", "--out", "x.h5"], "expected a file that ends in"),
        (["weights.npz", "--source", "keras"], "Missing option '--to'"),
    ],
)
def test_what_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    weights(tmp_path)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    code, out, err = run(monkeypatch, capsys, "port", *arguments)
    assert (code, out) == (2, "")
    assert says in err


def test_conventions(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(monkeypatch, capsys, "conventions")
    assert code == 0
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert lines[0] == "torch Keras Flax MLX ONNX"
    assert "running_var running_var moving_variance var running_var input_var" in lines
    assert "momentum weighs the new batch old value old value new batch old value" in lines

    code, out, _ = run(monkeypatch, capsys, "conventions", "keras", "torch", "--format", "json")
    assert list(json.loads(out)) == ["keras", "torch"]
    assert json.loads(out)["keras"]["eps"]["batch"] == 1e-3

    code, _, err = run(monkeypatch, capsys, "conventions", "jax")
    assert (code, err) == (2, "error: expected libraries among torch, keras, flax, mlx, onnx; got 'jax'\n")
