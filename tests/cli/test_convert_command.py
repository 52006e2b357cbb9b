"""``normkit convert`` on the command line."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import normkit
from normkit.model.files import read_state
from tests.cli.test_help import Printed, run

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU())

def with_input():
    return build(), torch.ones(2, 3, 8, 8)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(16)
    def forward(self, x, y):
        return self.norm(x + y)

def with_two():
    return Two(), (torch.ones(2, 16, 4, 4), torch.randn(2, 16, 4, 4))

class Odd(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2

def with_odd():
    return nn.Sequential(build(), Odd(16), nn.LayerNorm(6))

def without():
    return nn.Linear(3, 3)

def loader():
    return [torch.randn(6, 3, 8, 8) + 2, torch.randn(2, 3, 8, 8)]
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Command":
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    return Command(monkeypatch, capsys)


class Command:
    """The command in a folder with net.py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.fixtures = monkeypatch, capsys

    def __call__(self, function: str, *arguments: str) -> Printed:
        return run(*self.fixtures, "convert", f"net.py:{function}", *arguments)


def test_it_says_what_is_converted_and_how_far_the_result_moves(command: Command) -> None:
    code, out, _ = command("build", "--to", "group")
    assert code == 0
    assert "1 × BatchNorm2d -> GroupNorm (4 groups): 1" in out
    assert "example" not in out
    for function in ("with_input", "with_two"):
        assert "result on the example moved by" in command(function, "--to", "group").out
    tree = json.loads(command("with_input", "--to", "group", "--groups", "2", "--format", "json").out)
    assert tree["converted"] == [{"name": "1", "before": "BatchNorm2d", "after": "GroupNorm", "groups": 2}]
    assert tree["drift"]["largest"] > 0


def test_weights_rescaled_on_data_are_written(command: Command) -> None:
    norm = nn.BatchNorm2d(16)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), norm, nn.ReLU())
    nn.init.uniform_(norm.weight, 1, 2)
    torch.save(model.state_dict(), "old.pt")
    np.save("x.npy", np.random.default_rng(0).normal(2, 3, (6, 3, 8, 8)).astype(np.float32))
    options = ("--weights", "old.pt", "--to", "group", "--out", "new.safetensors")
    code, out, err = command("build", *options, "--data", "x.npy", "--batch-size", "4")
    assert code == 0
    assert "weight and bias of 1 rescaled" in out
    assert "written: new.safetensors" in err
    assert "pass" not in err  # the progress is for terminals
    state = read_state(Path("new.safetensors"))
    assert set(state) == {"0.weight", "0.bias", "1.weight", "1.bias"}
    batches = torch.from_numpy(np.load("x.npy")).split(4)
    normkit.convert(model, "group", data=batches)
    torch.testing.assert_close(state["1.weight"], norm.weight.detach())

    assert command("build", *options).code == 2
    assert command("build", *options, "--force", "--data", "net.py:loader").code == 0


def test_the_exit_status_says_that_a_batch_norm_was_left(command: Command) -> None:
    code, out, _ = command("with_odd", "--to", "layer")
    assert code == 1
    assert "left 1 × Odd: 1: its class overrides forward" in out
    assert "left 1 × LayerNorm: 2" not in out  # it is what it is to become
    code, out, _ = command("with_odd", "--to", "group", "--include", "0.*", "--include", "2")
    assert code == 0
    assert "left 1 × LayerNorm: 2: it is no batch norm" in out


@pytest.mark.parametrize(
    ("function", "arguments", "says"),
    [
        ("build", ["--to", "rms"], "--to must be one of group, layer"),
        ("build", ["--to", "sync", "--out", "x.pt"], "--to sync changes no weights"),
        ("build", ["--to", "layer", "--groups", "2"], "--groups belong to a group norm"),
        ("build", ["--to", "group", "--groups", "3"], "--groups must divide the number of channels"),
        ("build", ["--to", "sync", "--data", "net.py:loader"], "--data rescale weights"),
        ("build", ["--to", "batch"], None),
        ("build", ["--to", "group", "--include", "5"], "--include expects patterns"),
        ("build", ["--to", "group", "--out", "x.h5"], "expected a file that ends in"),
        ("build", ["--to", "group", "--data", "net.py:loader", "--batch-size", "0"], "--batch-size must be 1 or more"),
        ("missing", ["--to", "group"], "missing"),
    ],
)
def test_what_is_refused(command: Command, function: str, arguments: list[str], says: str | None) -> None:
    code, out, err = command(function, *arguments)
    if says is None:
        assert (code, out.strip()) == (0, "convert: 0 layers to batch, 1 batch already")
    else:
        assert (code, out) == (2, "")
        assert says in err
