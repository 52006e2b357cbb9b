"""``normkit check`` as a user runs it."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from normkit.checking.rules import RULES
from normkit.checking.rules.output import OutputShape
from normkit.cli import main

EXAMPLES = Path(__file__).parents[2] / "examples"


Run = Callable[..., tuple[Any, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run_command(*arguments: str) -> tuple[Any, str, str]:
        monkeypatch.setattr(sys, "argv", ["normkit", "check", *arguments])
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return caught.value.code, printed.out, printed.err

    return run_command


def test_equivalent(run: Run) -> None:
    code, out, err = run("torch.nn:BatchNorm2d")
    assert code == 0, err
    assert "N, H, W: per channel" in out
    assert "Equivalent to torch.nn.BatchNorm2d: no findings." in out


def test_deviating(run: Run) -> None:
    code, out, _ = run(f"{EXAMPLES}/whole_tensor.py:BatchNorm2D")
    assert code == 1
    assert "wrong-axes: averages over the whole tensor" in out
    assert "Not equivalent to" in out
    assert "1 error, 2" in out


def test_json(run: Run) -> None:
    code, out, _ = run(f"{EXAMPLES}/annotated.py:LayerNorm", "--format", "json")
    report = json.loads(out)
    assert code == 1
    assert report["ok"] is False
    assert report["family"] == "layer"
    assert report["identity"]["eps_place"] == "outside"
    found = {finding["code"] for finding in report["findings"]}
    assert {"eps-misplaced", "unbiased-normalization"} <= found
    assert all(finding["evidence"] and finding["fix"] and finding["why"] for finding in report["findings"])


def test_github(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES.parent)
    code, out, _ = run("examples/whole_tensor.py:BatchNorm2D", "--format", "github")
    lines = out.splitlines()
    assert code == 1
    place = "file=examples/whole_tensor.py,line=6"
    assert lines[0].startswith(f"::error {place},title=normkit check%3A wrong-axes::averages")
    assert sum(line.startswith("::warning file=") for line in lines) == 2
    assert "%0Afix: " in lines[0]


@pytest.mark.parametrize(
    ("text", "place", "reason"),
    [
        ("import torch\nclass Norm(:\n", "file=norms.py,line=2,", "importing norms.py raised SyntaxError"),
        ("import torch\n\nclass Norm: ...\n", "file=norms.py,line=3,", "expected a class with forward or __call__"),
        ("import torch\nclass Other: ...\n", "file=norms.py,line=1,", "norms.py has no 'Norm'"),
    ],
)
def test_github_says_what_cannot_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, place: str, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("norms.py").write_text(text)
    code, out, err = run("norms.py:Norm", "--format", "github")
    assert code == 2
    assert out.startswith(f"::error {place}title=normkit check%3A not run::{reason}")
    assert f"error: {reason}" in err


@pytest.mark.parametrize("text", ["class Norm(:\n", "class BatchNorm(torch.nn.Module): ...\n"])
def test_github_says_the_same_of_one_file_and_of_several(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("norms.py").write_text(text)
    Path("others.py").write_text(text)
    for targets in (["norms.py"], ["norms.py", "others.py"]):
        out = run(*targets, "--format", "github")[1]
        assert out.startswith("::error file=norms.py,line=1,title=normkit check%3A not run::"), out


@pytest.mark.parametrize("output", ["text", "json", "github"])
def test_crash_midway_shows_what_was_found(run: Run, tmp_path: Path, output: str) -> None:
    path = tmp_path / "norms.py"
    path.write_text(
        "import os\n"
        "import numpy as np\n"
        "def layer_norm(x, eps=1e-3):\n"
        "    if x.size == 0: os.abort()\n"
        "    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)\n"
    )
    code, out, err = run(f"{path}:layer_norm", "--format", output)
    assert code == 2
    assert "SIGABRT while checking empty-batch" in err
    assert "Found before that: affine-missing, eps-differs" in err
    if output == "json":
        assert [finding["code"] for finding in json.loads(out)["findings"]] == ["affine-missing", "eps-differs"]
    else:
        assert out.index("affine-missing") < out.index("eps-differs")


def traceback_of(err: str) -> str:
    """What is in the file that an error names."""
    path = Path(err.rstrip().rpartition(" with the traceback in ")[2])
    text = path.read_text()
    path.unlink()
    assert text.startswith("Traceback")
    return text


@pytest.mark.parametrize("output", ["text", "json", "github"])
def test_a_bug_of_ours_is_no_finding(run: Run, monkeypatch: pytest.MonkeyPatch, output: str) -> None:
    def fail(self: Any, probe: Any) -> Any:
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(OutputShape, "check", fail)
    code, out, err = run("torch.nn:LayerNorm", "--format", output)
    assert code == 3
    assert "normkit's own code failed while checking output-shape; please report it at https://" in err
    assert err.count("\n") == 1
    assert "ZeroDivisionError: ours" in traceback_of(err)
    if output == "json":
        plain = json.loads(out)
        assert (plain["target"], plain["ok"], plain["bug"]) == ("torch.nn:LayerNorm", False, True)
        assert "ZeroDivisionError" in plain["error"]
    elif output == "github":
        assert out.startswith("::error title=normkit check%3A bug::normkit's own code failed")
    else:
        assert out == ""


def test_a_bug_of_the_command_keeps_its_traceback(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any, **options: Any) -> Any:
        raise ZeroDivisionError("here")

    monkeypatch.setattr("normkit.checking.process.check_target", fail)
    code, out, err = run("torch.nn:LayerNorm", "--format", "json")
    assert code == 3
    assert json.loads(out)["bug"] is True
    assert err.startswith("error: normkit's own code failed (ZeroDivisionError: here); please report it at https://")
    assert err.count("\n") == 1
    assert "ZeroDivisionError: here" in traceback_of(err)


REFUSES_LARGE = """\
import torch
class LayerNorm(torch.nn.LayerNorm):
    def forward(self, x):
        if x.numel() and float(x.abs().max()) > 50: raise ValueError('too large')
        return super().forward(x)
"""


def test_not_judged(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "norms.py"
    path.write_text(REFUSES_LARGE)
    code, out, err = run(f"{path}:LayerNorm")
    assert (code, err) == (2, "")
    assert "\n\nNot judged: " in out
    assert "too large" in out
    assert "quivalent" not in out
    code, out, _ = run(f"{path}:LayerNorm", "--format", "json")
    plain = json.loads(out)
    assert code == 2
    assert (plain["verdict"], plain["ok"], plain["findings"]) == ("not judged", False, [])
    assert "too large" in plain["not_judged"][0]
    annotation, conclusion = run(f"{path}:LayerNorm", "--format", "github")[1].splitlines()
    assert re.match(r"::error file=.*norms.py,line=2,title=normkit check%3A not judged::wrong-axes, ", annotation)
    assert conclusion.startswith("Not judged: wrong-axes, ")


BIASED = (
    "import torch\n"
    "class BatchNorm2d(torch.nn.BatchNorm2d):\n"
    "    def forward(self, x):\n"
    "        if not self.training: return super().forward(x)\n"
    "        var, mean = torch.var_mean(x, (0, 2, 3), correction=0)\n"
    "        with torch.no_grad():\n"
    "            self.running_mean.lerp_(mean, self.momentum), self.running_var.lerp_(var, self.momentum)\n"
    "        x_hat = (x - mean[:, None, None]) / (var + self.eps).sqrt()[:, None, None]\n"
    "        return x_hat * self.weight[:, None, None] + self.bias[:, None, None]\n"
)


@pytest.mark.parametrize(
    ("options", "status", "shown", "said"),
    [
        (["--ignore", "biased-running-var"], 0, {"warning"}, "1 finding left out (biased-running-var)"),
        (["--ignore", "biased-running-var", "--strict"], 1, {"warning"}, "3 warnings, and warnings count."),
        (["--select", "wrong-axes,eps-differs"], 0, set(), "4 findings left out (biased-running-var, half-"),
        (["--select", "wrong-axes", "--select", "biased-running-var"], 1, {"error"}, "1 error. 3 findings left out"),
        (["--select", "single-value", "--ignore", "single-value"], 0, set(), "4 findings left out"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_counts(run: Run, tmp_path: Path, options: list[str], status: int, shown: set[str], said: str) -> None:
    path = tmp_path / "norms.py"
    path.write_text(BIASED)
    code, out, err = run(f"{path}:BatchNorm2d", *options)
    assert (code, err) == (status, "")
    assert set(re.findall(r"^ *(error|warning|note)  ", out, re.MULTILINE)) == shown
    conclusion = out.rpartition("\n\n")[2].replace("\n", " ")
    assert conclusion.startswith("Not equivalent to torch.nn.BatchNorm2d: ")
    assert said in conclusion


def test_what_counts_of_many_and_in_json(run: Run, tmp_path: Path) -> None:
    (tmp_path / "norms.py").write_text(BIASED)
    (tmp_path / "others.py").write_text("import torch\nclass LayerNorm(torch.nn.LayerNorm): ...\n")
    code, out, _ = run(str(tmp_path), "--ignore", "biased-running-var", "--format", "json")
    first, second = json.loads(out)["targets"]
    assert code == 0
    assert (first["verdict"], first["ok"], first["exit_status"]) == ("not equivalent", False, 0)
    assert [finding["code"] for finding in first["left_out"]] == ["biased-running-var"]
    assert (second["verdict"], second["exit_status"]) == ("equivalent", 0)
    assert run(str(tmp_path), "--summary", "--strict", "--ignore", "biased-running-var")[0] == 1


def test_selecting_what_was_measured_is_enough(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "norms.py"
    path.write_text(REFUSES_LARGE)
    for selected, status in (("output-shape", 0), ("wrong-axes", 2)):
        code, out, _ = run(f"{path}:LayerNorm", "--select", selected)
        assert code == status
        assert "quivalent" not in out


def test_piped_output_has_no_trailing_blanks_and_no_markup(run: Run) -> None:
    for arguments in (["--list"], ["--explain", "wrong-axes"], [f"{EXAMPLES}/annotated.py:LayerNorm"]):
        out = run(*arguments)[1]
        assert not [line for line in out.splitlines() if line != line.rstrip()]
    assert "``" not in run(f"{EXAMPLES}/annotated.py:LayerNorm", "--format", "github")[1]


def test_options_reach_the_target(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "norms.py"
    path.write_text(
        "import numpy as np\n"
        "def normalize(x, gamma, beta, flavour, eps=1e-3):\n"
        "    assert flavour == chr(115) + 'weet'\n"  # not to be read in the code
        "    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)\n"
        "    return ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(x.dtype)\n"
    )
    code, _, err = run(f"{path}:normalize")
    assert code == 2
    assert "flavour" in err
    assert "--call NAME=VALUE" in err
    options = ["--call", "flavour=sweet", "--call", "eps=1e-5", "--as", "layer", "--features", "8", "--format", "json"]
    code, out, _ = run(f"{path}:normalize", *options)
    report = json.loads(out)
    assert code == 0
    assert report["identity"]["eps"] == pytest.approx(1e-5, rel=1e-3)
    assert report["identity"]["parameters"]["gamma"].startswith("(8,)")
    assert report["findings"] == []


def test_convention(run: Run) -> None:
    assert run("torch.nn:BatchNorm2d", "--convention", "keras")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "expected a TARGET"),
        (("nowhere.py:f",), "nowhere.py does not exist"),
        (("torch.nn:Nothing",), "torch.nn has no 'Nothing'"),
        (("torch.nn:BatchNorm2d", "--as", "weight"), "must be one of batch, layer, group, instance, rms"),
        (("torch.nn:BatchNorm2d", "--init", "eps"), "expects NAME=VALUE"),
        (("torch.nn:BatchNorm2d", "--init", "flavour=1"), "no argument is called 'flavour'"),
        (("--explain", "wrong-axis"), "did you mean wrong-axes?"),
        (("torch.nn:BatchNorm2d", "--select", "wrong-axis"), "did you mean wrong-axes?"),
        (("torch.nn:BatchNorm2d", "--ignore", "colour"), "no check has the code 'colour': normkit check --list"),
        (("torch.nn:BatchNorm2d", "--ignore", ","), "--ignore expects codes of checks"),
    ],
)
def test_cannot_run(run: Run, arguments: tuple[str, ...], message: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert out == ""
    assert message in err
    assert "Traceback" not in err


def test_list(run: Run) -> None:
    code, out, _ = run("--list")
    assert code == 0
    assert all(rule in out for rule in RULES)
    assert f"{len(RULES)} checks" in out
    assert len(out.splitlines()) == len(RULES) + 3


@pytest.mark.parametrize("rule", RULES)
def test_every_check_documents_itself(run: Run, rule: str) -> None:
    code, out, _ = run("--explain", rule)
    assert code == 0
    for part in ("what", "why it matters", "how to fix", "severity", "applies to"):
        assert part in out
