"""``normkit warmup`` on the command line."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from normkit.cli import main
from normkit.model.warmup import Warmup

NET = """
import torch, normkit
def build():
    return normkit.BatchNorm2d(4), torch.randn(4, 4, 64, 64)
def two():
    return normkit.BatchNorm2d(4), (torch.ones(1), torch.ones(2))
def alone():
    return normkit.BatchNorm2d(4)
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder with a model."""
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", "warmup", *arguments])
        with pytest.raises(SystemExit) as exit_:
            main()
        assert isinstance(exit_.value.code, int)
        return exit_.value.code, *capsys.readouterr()

    return run


def test_a_model(run: Run) -> None:
    code, out, _ = run("net.py:build", "--format", "json")
    assert code == 0
    assert json.loads(out)["problem"] is None
    assert not logging.getLogger("normkit").handlers


@pytest.mark.parametrize(
    ("arguments", "called"),
    [
        ((), ({"training": True, "dtypes": [torch.float32]}, type(None))),
        (("--dtype", "float16"), ({"training": True, "dtypes": [torch.float16]}, type(None))),
        (("net.py:two", "--inference"), ({"training": False, "dtypes": []}, tuple)),
    ],
)  # fmt: skip
def test_what_is_asked_for(
    arguments: tuple[str, ...], called: tuple[dict[str, object], type], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def warmup(model: object, inputs: object, **options: object) -> Warmup:
        calls.append((options, type(inputs) if model is not None else type(None)))
        return Warmup(("a",), (), "the disk is full")

    monkeypatch.setattr("normkit.model.warmup", warmup)
    code, out, _ = run(*arguments)
    assert (code, calls) == (1, [called])
    assert "the disk is full" in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dtype", "int8"), "--dtype must be float64, float32, bfloat16 or float16, not 'int8'"),
        (("--inference",), "--inference needs a model"),
        (("net.py:alone",), "returns a model alone: let it return the model and an input"),
    ],
)
def test_what_cannot_be_done(arguments: tuple[str, ...], says: str, run: Run) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert says in err
