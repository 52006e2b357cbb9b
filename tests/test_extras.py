"""What an installation without the extras does, and what it says where it needs one."""

import subprocess
import sys
from pathlib import Path

import pytest

WITHOUT = """
import importlib.abc, importlib.util, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocker())
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in {blocked!r} else real(name, package)
sys.argv = ["normkit", *{arguments!r}]
from normkit.cli import main
main()
"""


def run(*arguments: str, without: set[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in a process that lacks packages."""
    program = WITHOUT.format(blocked=without, arguments=arguments)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=cwd)


EXTRAS = {"matplotlib", "jinja2", "markupsafe", "safetensors", "sklearn"}


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["conventions"], "eps of batch"),
        (["explain", "batch"], "torch.nn.BatchNorm2d(4)"),
        (["bench", "memory", "--help"], "Count the bytes"),
    ],
)
def test_commands_need_no_extra(arguments: list[str], out: str) -> None:
    done = run(*arguments, without=EXTRAS)
    assert (done.returncode, done.stderr) == (0, "")
    assert out in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["explain", "batch", "--out", "x.svg"], "a picture needs matplotlib: run pip install '.[cli]' in the folder"),
        (["explain", "batch", "--out", "x.html"], "a page needs jinja2: run pip install '.[cli]' in the folder"),
        (["bench", "times", "--plot", "x.png"], "a picture needs matplotlib: run pip install '.[cli]'"),
        (["bench", "report", "x.md"], "a picture needs matplotlib: run pip install '.[cli]'"),
        (["diagnose", "net.py:build", "--html", "x.html"], "a page needs matplotlib and jinja2: run pip install"),
        (["train"], "training needs matplotlib and sklearn: run pip install '.[train]'"),
    ],
)
def test_what_needs_an_extra_says_so_before_all_work(tmp_path: Path, arguments: list[str], says: str) -> None:
    done = run(*arguments, without=EXTRAS, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {says}")
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
