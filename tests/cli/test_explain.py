"""``normkit explain`` on the command line."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from normkit.cli import main

BUILD = """
import torch

def build():
    return torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8))
"""


@pytest.fixture(autouse=True)
def _folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("COLUMNS", "80")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["normkit", "explain", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ((), "torch.nn.BatchNorm2d(4)"),
        (("group", "--groups", "4"), "torch.nn.GroupNorm(4, 4)"),
        (("layer", "--shape", "2,3,8", "--channels-last"), "torch.nn.LayerNorm(8)"),
        (("rms", "--shape", "(2, 3, 8)", "--normalized-shape", "3,8"), "torch.nn.RMSNorm((3, 8))"),
        (("channel",), "normkit.LayerNorm2d(4)"),
        (("--compare",), "Input (N, L, C) = (2, 3, 4)"),
        (("--compare", "--shape", "2,6,3", "--groups", "3"), "Input (N, C, L) = (2, 6, 3)"),
        (("--compare", "--shape", "1,3,8,8"), "C/G, H, W"),
        (("--compare", "--shape", "2,3"), "a mean of one value"),
        (("batch", "--steps", "10"), "running statistics over 10 training steps, momentum 0.1"),
        (("--steps", "2", "--momentum", "none"), "the plain average of all batches"),
        (("instance", "--lang", "zh"), "实例归一化"),
    ],
)
def test_it_shows(
    arguments: tuple[str, ...], shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, *arguments) == 0
    assert shown in capsys.readouterr().out


def test_the_locale_chooses_the_language(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert run(monkeypatch, "batch") == 0
    assert "批归一化" in capsys.readouterr().out


def test_an_array_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    np.save("x.npy", x)
    assert run(monkeypatch, "batch", "--input", "x.npy", "--format", "json") == 0
    tree = json.loads(capsys.readouterr().out)
    np.testing.assert_allclose(tree["mean"], x.mean(0), rtol=1e-5)
    assert run(monkeypatch, "batch", "--input", "x.npy", "--steps", "2", "--format", "json") == 0
    np.testing.assert_allclose(json.loads(capsys.readouterr().out)["steps"][0]["batch_mean"], x.mean(0), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        *((("group",), name) for name in ("a.svg", "a.png", "a.html", "A.SVG")),
        *((("--compare",), name) for name in ("a.svg", "a.png")),
        (("--steps", "2"), "a.svg"),
        (("--lang", "zh_CN"), "a.svg"),
    ],
)
def test_files(name: str, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert run(monkeypatch, *arguments, "--out", name) == 0
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_model(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("net.py").write_text(BUILD)
    assert run(monkeypatch, "--model", "net.py:build", "--shape", "2,3,6,6") == 0
    assert "N, H, W" in capsys.readouterr().out
    assert run(monkeypatch, "--model", "net.py:build", "--shape", "2,3,6,6", "--format", "json") == 0
    (norm,) = json.loads(capsys.readouterr().out)["norms"]
    assert norm["reduced"] == ["N", "H", "W"]
    assert norm["count"] == 32


def test_a_picture_that_cannot_be_chinese_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("normkit.explaining.pictures._cjk_fonts", list)
    assert run(monkeypatch, "--lang", "zh", "--out", "a.png") == 0
    assert "没有安装中文字体" in capsys.readouterr().err
    assert run(monkeypatch, "--lang", "zh", "--out", "a.svg") == 0
    assert "字体" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("group", "--groups", "3", "--out", "a.svg"), "got 4 channels and num_groups=3"),
        (("batch", "--shape", "1,4", "--out", "a.svg"), "Expected more than 1 value per channel when training"),
        (("batch", "--out", "a.gif"), "ends in .svg, .png or .html; got a.gif"),
        (("batch", "--out", "no/a.svg"), "does not exist"),
        (("batsh",), "unknown norm 'batsh'"),
        (("batch", "--shape", "2x3"), "--shape expects sizes with commas between them"),
        (("batch", "--shape", "2,0"), "--shape of sizes above 0"),
        (("batch", "--groups", "2"), "--groups 2 has a meaning for group norm alone"),
        (("batch", "--normalized-shape", "2"), "--normalized-shape has a meaning for layer and rms alone"),
        (("batch", "--lang", "fr"), "--lang fr: choose from en, zh"),
        (("batch", "--compare"), "--compare shows every norm: drop batch"),
        (("--compare", "--steps", "3"), "--compare and --steps show different things"),
        (("batch", "--momentum", "0.1"), "add --steps 10"),
        (("--compare", "--shape", "4"), "at least 2 axes"),
        (("--compare", "--groups", "3"), "divisible by num_groups"),
        (("--compare", "--groups", "-1"), "divisible by num_groups"),
        (("batch", "--steps", "3", "--momentum", "lots"), "--momentum must be a number from 0 to 1, or none"),
        (("batch", "--steps", "3", "--momentum", "2"), "--momentum must be between 0 and 1"),
        (("batch", "--steps", "0"), "--steps must be 1 or more"),
        (("layer", "--steps", "3"), "keeps no running statistics"),
        (("batch", "--input", "no.npy"), "cannot read no.npy"),
        (("batch", "--input", "no.npy", "--shape", "2,3"), "drop --shape"),
        (("--model", "net.py:build", "--out", "a.svg"), "--model prints a table"),
        (("--model", "net.py:build", "--groups", "2"), "drop --groups"),
        (("--compare", "--out", "a.html"), "shows every norm and momentum: drop --compare"),
        (("batch", "--shape", "40000,10000"), "up to 1,000,000 values; a --shape of 400,000,000 is too large"),
        (("--model", "net.py:build"), "net.py does not exist"),
    ],
)
def test_mistakes(
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert run(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
