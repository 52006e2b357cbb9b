"""``normkit diagnose`` on the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from normkit.cli import main
from tests.cli.several_inputs import SEVERAL_INPUTS

NET = (
    SEVERAL_INPUTS
    + """
torch.manual_seed(1)
x = torch.randn(12, 40, 3) * 2 + 1

def build():
    torch.manual_seed(0)
    linear, norm = torch.nn.Linear, torch.nn.BatchNorm1d
    return torch.nn.Sequential(linear(3, 8), norm(8), torch.nn.ReLU(), linear(8, 8), norm(8))

def with_input():
    return build(), x.flatten(0, 1)

def loader():
    return list(x)

def narrow():
    return [x[0, :, :2]]

def none():
    return []
"""
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command in a folder with a model, data, and weights whose statistics are right."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET)
    np.save("x.npy", np.random.default_rng(0).normal(1, 2, (480, 3)))

    def run_command(*arguments: str, command: str = "diagnose") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", command, *arguments])
        with pytest.raises(SystemExit) as caught:
            main()
        assert isinstance(caught.value.code, int)
        return caught.value.code, *capsys.readouterr()

    assert run_command("net.py:build", "--data", "net.py:loader", "--out", "right.pt", command="recalibrate")[0] == 0
    return run_command


def test_causes_are_printed_and_the_status_is_1(run: Run) -> None:
    code, out, err = run("net.py:build", "--data", "net.py:loader")
    assert (code, err) == (1, "")
    words = " ".join(out.split())
    assert words.startswith("diagnose: 1 cause (2 layers, 12 batches; gap ")
    assert "1. never-updated: explains 9" in words
    assert "where: 1, 4" in words
    assert "call: normkit.recalibrate(model, data)" in words


def test_a_healthy_model_has_status_0(run: Run) -> None:
    code, out, _ = run("net.py:build", "--data", "net.py:loader", "--weights", "right.pt")
    assert (code, out.split(" (")[0]) == (0, "diagnose: healthy")


def test_data_may_be_an_array_or_come_with_the_model(run: Run) -> None:
    for arguments in (("net.py:build", "--data", "x.npy", "--batch-size", "32"), ("net.py:with_input",)):
        code, out, _ = run(*arguments)
        assert code == 1
        assert "never-updated" in out
    assert "(2 layers, 3 batches;" in run("net.py:build", "--data", "x.npy", "--batches", "3")[1]


def test_json_holds_the_numbers(run: Run) -> None:
    code, out, _ = run("net.py:build", "--data", "net.py:loader", "--format", "json")
    tree = json.loads(out)
    assert code == 1
    assert not tree["healthy"]
    assert [layer["name"] for layer in tree["layers"]] == ["1", "4"]
    assert tree["findings"][0]["layers"] == ["1", "4"]
    assert tree["layers"][0]["momentum"] == pytest.approx(0.1, abs=1e-4)


def test_a_page_is_written_and_not_overwritten(run: Run) -> None:
    arguments = ("net.py:build", "--data", "net.py:loader", "--html", "report.html")
    code, _, err = run(*arguments)
    page = Path("report.html").read_text()
    assert (code, err) == (1, "written: report.html\n")
    assert "never-updated" in page
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "report.html exists: name another file, or give --force" in err
    assert Path("report.html").read_text() == page
    assert run(*arguments, "--force")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["net.py:build"], "this needs data"),
        (["net.py:build", "--data", "net.py:none"], "it yields none"),
        (["net.py:build", "--data", "net.py:narrow"], "cannot be run on these --data; it raised RuntimeError"),
        (["net.py:build", "--data", "net.py:loader", "--batches", "0"], "--batches must be 1 or more, not 0"),
        (["net.py:build", "--data", "net.py:loader", "--html", "page.txt"], "ends in .html; got page.txt"),
        (["net.py:build", "--data", "net.py:loader", "--html", "no/page.html"], "of no/page.html does not exist"),
        (["net.py:build", "--data", "net.py:loader", "--weights", "no.pt"], "no.pt does not exist"),
        (["net.py:absent", "--data", "net.py:loader"], "absent"),
    ],
)
def test_bad_input_has_status_2(run: Run, arguments: list[str], says: str) -> None:
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert says in err


@pytest.mark.parametrize("target", ["two_inputs", "keywords"])
def test_a_model_of_several_inputs_gets_all_of_them(run: Run, target: str) -> None:
    code, printed, said = run(f"net.py:{target}", "--format", "json")
    assert code == 1, said
    assert json.loads(printed)["findings"][0]["code"] == "never-updated"
