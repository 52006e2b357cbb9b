"""``normkit recalibrate`` on the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from normkit.cli import main
from normkit.model.files import read_state
from tests.cli.several_inputs import SEVERAL_INPUTS

NET = (
    SEVERAL_INPUTS
    + """
def build():
    torch.manual_seed(0)
    linear, norm = torch.nn.Linear, torch.nn.BatchNorm1d
    return torch.nn.Sequential(linear(3, 4), norm(4), linear(4, 4), norm(4))

def with_input():
    return build(), torch.ones(5, 3) * torch.arange(5.0)[:, None]

def loader():
    return [torch.randn(6, 3) + 2, torch.randn(1, 3)]

def broken():
    return [torch.full((6, 3), float("nan"))]

def none():
    return []

def once():
    yield torch.randn(6, 3)
"""
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder with a model and data."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    np.save("x.npy", np.random.default_rng(0).normal(3, 2, (50, 3)))

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", "recalibrate", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run_command


@pytest.mark.parametrize("mode", ["pooled", "sequential"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_weights_are_written_with_new_statistics(run: Run, mode: str, suffix: str) -> None:
    code, out, err = run("net.py:build", "--data", "x.npy", "--mode", mode, "--batch-size", "16", "--out", f"w{suffix}")
    assert code == 0, err
    assert f"recalibrate ({mode}): 2 layers, 4 batches" in out
    state = read_state(Path(f"w{suffix}"))
    x = torch.from_numpy(np.load("x.npy")).float()
    first = torch.nn.functional.linear(x, state["0.weight"], state["0.bias"])
    torch.testing.assert_close(state["1.running_mean"], first.mean(0), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(state["1.running_var"], first.var(0), rtol=1e-5, atol=1e-5)
    code, out, _ = run(
        "net.py:build",
        "--weights",
        f"w{suffix}",
        "--data",
        "x.npy",
        "--mode",
        mode,
        "--batch-size",
        "16",
        "--format",
        "json",
    )
    found = json.loads(out)
    assert code == 0
    assert max(layer["mean_moved"] for layer in found["layers"]) < 1e-5


def test_without_out_nothing_is_written(run: Run) -> None:
    before = sorted(Path().iterdir())
    code, out, _ = run("net.py:with_input")
    assert code == 0
    assert "2 layers, 1 batch" in out
    assert [path for path in sorted(Path().iterdir()) if path.name != "__pycache__"] == before


def test_patterns(run: Run) -> None:
    code, out, _ = run("net.py:build", "--data", "x.npy", "--exclude", "1", "--format", "json")
    assert code == 0
    assert [layer["name"] for layer in json.loads(out)["layers"]] == ["3"]
    code, _, err = run("net.py:build", "--data", "x.npy", "--include", "head")
    assert code == 2
    assert "--include expects patterns of names of normalization layers; 'head' fits none of 1, 3" in " ".join(
        err.split()
    )


def test_what_was_left_is_the_exit_status(run: Run) -> None:
    code, out, _ = run("net.py:build", "--data", "net.py:loader")
    assert code == 1
    assert "1: 1 batch ended here" in out
    assert "--mode sequential" in " ".join(out.split())
    code, out, _ = run("net.py:build", "--data", "net.py:broken")
    assert code == 1
    assert "left 3 (BatchNorm1d): each of its inputs held NaN or infinity" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "this needs data"),
        (("--data", "net.py:none"), "got no batch from --data"),
        (("--data", "net.py:once", "--mode", "sequential"), "goes over --data several times"),
        (("--data", "x.npy", "--mode", "both"), '--mode to be "pooled" or "sequential"'),
        (("--data", "x.npy", "--out", "w.npz"), "ends in .safetensors"),
        (("--data", "x.npy", "--out", "net.pt"), "give --force to overwrite"),
    ],
)
def test_what_cannot_be_done_is_said_and_writes_nothing(run: Run, arguments: tuple[str, ...], says: str) -> None:
    Path("net.pt").write_bytes(b"mine")
    code, _, err = run("net.py:build", *arguments)
    assert code == 2
    assert says in " ".join(err.split())
    assert Path("net.pt").read_bytes() == b"mine"
    assert not Path("w.npz").exists()


def test_force_overwrites(run: Run) -> None:
    Path("net.pt").write_bytes(b"mine")
    assert run("net.py:build", "--data", "x.npy", "--out", "net.pt", "--force")[0] == 0
    assert read_state(Path("net.pt"))


@pytest.mark.parametrize("target", ["two_inputs", "keywords"])
def test_a_model_of_several_inputs_gets_all_of_them(run: Run, target: str) -> None:
    code, _, said = run(f"net.py:{target}", "--out", "new.pt")
    assert code == 0, said
    torch.manual_seed(0)
    x = torch.randn(40, 3) + 10 * torch.randn(40, 3)
    torch.testing.assert_close(read_state(Path("new.pt"))["norm.running_mean"], x.mean(0))
