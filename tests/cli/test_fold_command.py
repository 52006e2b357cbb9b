"""``normkit fold`` on the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import normkit
from normkit.cli import main
from normkit.model.files import read_state

NET = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU())

def with_input():
    return build(), torch.ones(1, 3, 5, 5)

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.BatchNorm1d(4)
    def forward(self, x, scale):
        return self.second(self.first(x)) * scale

def with_two_inputs():
    return Two(), (torch.ones(2, 3), torch.ones(()))

def behind_relu():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.BatchNorm1d(4)), torch.ones(2, 3)

def layer_norm():
    norm = nn.LayerNorm(3)
    nn.init.normal_(norm.weight)
    return nn.Sequential(norm, nn.Linear(3, 2)), torch.ones(2, 3)

def unseen():
    class Net(nn.Sequential):
        def forward(self, x):
            return super().forward(x) * self[1].momentum
    return Net(nn.Linear(3, 4), nn.BatchNorm1d(4)), torch.ones(2, 3)

def none():
    return []
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder with models and data."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    np.save("x.npy", np.random.default_rng(0).normal(0, 1, (3, 3, 5, 5)))

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", "fold", *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    return run_command


def network() -> Any:
    """What build of NET returns, in evaluation mode."""
    torch.manual_seed(0)
    norm: Any = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU()).eval()


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_it_writes_weights_that_a_folded_model_loads(run: Run, suffix: str) -> None:
    model = network()
    nn.init.normal_(model[0].weight)
    torch.save(model.state_dict(), "weights.pt")
    code, out, err = run("net.py:build", "--weights", "weights.pt", "--data", "x.npy", "--out", f"new{suffix}")
    assert (code, out.splitlines()[:2]) == (0, ["fold: 1 of 1 norms folded", "  1  BatchNorm2d  into 0"])
    assert f"written: new{suffix}" in err
    other, x = network(), torch.randn(2, 3, 6, 6)
    normkit.fold(other, x)
    other.load_state_dict(read_state(Path(f"new{suffix}")))
    torch.testing.assert_close(other(x), model(x), rtol=0, atol=1e-5)


def test_an_input_that_comes_with_the_model_is_the_example(run: Run) -> None:
    assert run("net.py:with_input")[0] == 0
    code, out, _ = run("net.py:with_two_inputs", "--format", "json")
    found = json.loads(out)
    assert code == 0
    assert found["norms"] == [
        {"name": "second", "cls": "BatchNorm1d", "into": ["first"], "reason": None, "is_gone": True}
    ]
    assert found["difference"]["float64"] < 1e-10


def test_norms_that_are_left_are_named_and_nothing_is_written(run: Run) -> None:
    code, out, _ = run("net.py:behind_relu", "--out", "new.pt")
    assert (code, out) == (1, "fold: 0 of 1 norms folded\n  2  BatchNorm1d  left: relu stands between 0 and it\n")
    assert not Path("new.pt").exists()


def test_another_place(run: Run) -> None:
    code, out, _ = run("net.py:layer_norm")
    assert code == 1
    assert out.strip().endswith("into the layers behind it: --into next")
    assert run("net.py:layer_norm", "--into", "next")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("net.py:build",), "give --data, or let the function return the model and an input"),
        (("net.py:build", "--data", "net.py:none"), "--data has no batch"),
        (("net.py:with_input", "--into", "behind"), "--into must be previous, next or both; got 'behind'"),
        (("net.py:with_input", "--out", "net.py"), "expected a file that ends in .safetensors"),
        (("net.py:with_input", "--out", "x.pt"), "give --force to overwrite it"),
        (("net.py:unseen",), "nothing was folded: 1 into 0 gave AttributeError"),
    ],
)
def test_what_cannot_be_used_is_refused(run: Run, arguments: tuple[str, ...], says: str) -> None:
    Path("x.pt").write_bytes(b"")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert says in err
    assert Path("x.pt").read_bytes() == b""
