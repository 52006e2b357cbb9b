"""``normkit parameter-groups`` on the command line."""

import json
from pathlib import Path

import pytest

from tests.cli.test_help import run

NET = """
from torch import nn

def build():
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.PReLU(4))

def none():
    return 3
"""


def test_it_says_what_goes_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    command = ("parameter-groups", "net.py:build", "--weight-decay", "0.1")
    code, out, _ = run(monkeypatch, capsys, *command)
    assert code == 0
    assert "decay 0.1: 2 parameters, 16 values" in out
    assert "2 × norm (LayerNorm): 1.weight, 1.bias" in out
    tree = json.loads(run(monkeypatch, capsys, *command, "--no-decay", "2.*", "--format", "json").out)
    groups = {one["name"]: one["group"] for one in tree["parameters"]}
    assert groups["2.weight"] == "no decay"
    for arguments, says in (
        (["net.py:build", "--weight-decay", "-1"], "--weight-decay must be 0 or more"),
        (["net.py:build", "--no-decay", "x"], "--no-decay fits no parameter"),
        (["net.py:none"], "not a function"),
    ):
        code, out, err = run(monkeypatch, capsys, "parameter-groups", *arguments)
        assert (code, out) == (2, ""), says
        assert err.startswith("error: ")
