"""The target runs in another process: nothing that it does there is ours."""

import contextlib
import multiprocessing
import os
import signal
import sys
import textwrap
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import planted_modules as modules
import pytest
import torch

from normkit.checking import Options, check
from normkit.checking.process import check_target
from normkit.checking.target.errors import CannotRunError
from normkit.checking.target.load import load

GOOD = """
    import numpy as np
    def layer_norm(x, gamma, beta, eps=1e-5):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return ((x - mean) / np.sqrt(var + eps) * gamma + beta).astype(x.dtype)
"""


Write = Callable[[str], str]


@pytest.fixture
def written(tmp_path: Path) -> Write:
    def write(text: str, name: str = "layers.py") -> str:
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return str(path)

    return write


def test_file(written: Write) -> None:
    report = check(written(GOOD) + ":layer_norm")
    assert report.findings == ()
    assert report.target.endswith("layers.py:layer_norm")
    assert str(report.source).endswith("layers.py")
    assert report.line == 3


def test_module() -> None:
    assert check("torch.nn:LayerNorm").ok


def test_print_and_seed_at_import(written: Write, capfd: pytest.CaptureFixture[str]) -> None:
    script = "import numpy as np\nnp.random.seed(0)\nprint('training ...')\n"
    report = check(written(script + textwrap.dedent(GOOD)) + ":layer_norm")
    assert set(report.codes) == {"prints", "global-state"}
    assert report.ok
    assert capfd.readouterr() == ("", "")


def test_crash(written: Write) -> None:
    with pytest.raises(CannotRunError, match=r"SIGABRT while finding out how to build and call it"):
        check(written("import os\ndef layer_norm(x): os.abort()") + ":layer_norm")


def test_exit(written: Write) -> None:
    with pytest.raises(CannotRunError, match="exit status 3"):
        check(written("import os\ndef layer_norm(x): os._exit(3)") + ":layer_norm")


@pytest.mark.slow
def test_hang_at_import(written: Write) -> None:
    with pytest.raises(CannotRunError, match="did not finish within 20 s; it was stopped while importing it"):
        check_target(written("while True: pass") + ":layer_norm", Options(), timeout=20)


@pytest.mark.parametrize("fork", [True, False])
def test_what_was_found_before_a_crash_is_kept(written: Write, fork: bool) -> None:
    text = (
        textwrap.dedent(GOOD)
        .replace("1e-5", "1e-3")
        .replace("    return", "    if x.size == 0: os.abort()\n    return")
    )
    with pytest.raises(
        CannotRunError, match="SIGABRT while checking empty-batch\nFound before that: eps-differs"
    ) as caught:
        check_target(written("import os\n" + text) + ":layer_norm", Options(), fork=fork)
    assert [finding.code for finding in caught.value.findings] == ["eps-differs"]


def test_what_was_found_before_a_hang_is_kept() -> None:
    def layer_norm(x: Any, eps: float = 1e-3) -> Any:
        while not x.size:
            pass
        return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)

    with pytest.raises(CannotRunError, match="stopped while checking empty-batch") as caught:
        check(layer_norm, timeout=5)
    assert {"eps-differs", "affine-missing"} <= {finding.code for finding in caught.value.findings}


def test_fork_leaves_nothing_behind(written: Write, capfd: pytest.CaptureFixture[str]) -> None:
    script = "import torch, os\ntorch.set_default_dtype(torch.float64)\nos.environ['X_NORMKIT'] = '1'\nprint('hello')\n"
    report = check_target(written(script + textwrap.dedent(GOOD)) + ":layer_norm", Options(), fork=True)
    assert set(report.codes) == {"prints", "global-state"}
    assert report.isolation == "process"
    assert torch.get_default_dtype() is torch.float32
    assert "X_NORMKIT" not in os.environ
    assert capfd.readouterr() == ("", "")


def test_report_says_where_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    forked = check(modules.LayerNorm)
    assert forked.isolation == "fork"
    assert "a fork of the calling process" in str(forked)
    monkeypatch.setattr("normkit.checking.process._CAN_FORK", False)
    here = check(modules.LayerNorm)
    assert here.isolation == "none"
    assert "run in            the calling process, on copies" in str(here)
    assert "run in" not in str(check("torch.nn:LayerNorm"))


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt])
def test_target_that_ends_the_program(error: type[BaseException]) -> None:
    def layer_norm(x: Any) -> Any:
        raise error(4)

    with pytest.raises(CannotRunError, match=f"raised {error.__name__}: 4"):
        check(layer_norm)


def test_in_memory_object_is_forked_as_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    class BatchNorm(modules.BatchNorm):  # type: ignore[misc]  # of layers written by hand, which are not checked
        def unbiased(self, var: Any, x: Any) -> Any:
            print("somewhere else")
            return var

    report = check(BatchNorm)
    assert set(report.codes) == {"biased-running-var", "prints"}
    assert capfd.readouterr() == ("", "")


def test_in_memory_object_hangs_and_crashes() -> None:
    def layer_norm(x: Any) -> Any:
        while True:
            pass

    with pytest.raises(CannotRunError, match="did not finish within 1 s"):
        check(layer_norm, timeout=1)

    def crashing_layer_norm(x: Any) -> Any:
        import os

        os.abort()

    with pytest.raises(CannotRunError, match="SIGABRT"):
        check(crashing_layer_norm)


def test_in_memory_object_cannot_change_this_process() -> None:
    check(modules.SwitchesGradOff)
    check(modules.Seeds)
    assert torch.get_default_dtype() is torch.float32
    before = torch.nn.BatchNorm2d(6)
    check(before)
    assert before.num_batches_tracked == 0


def test_in_this_process_an_instance_stays_as_it_is() -> None:
    layer = torch.nn.BatchNorm2d(6)
    check(layer, isolated=False)
    assert layer.num_batches_tracked == 0
    assert torch.equal(layer.weight, torch.ones(6))


@pytest.mark.parametrize(
    ("text", "target", "message"),
    [
        ("x = 1", ":Norm", "has no 'Norm'; it defines: nothing callable"),
        ("def f(x): ...", ":Norm", "it defines: f"),
        ("import nowhere_at_all", ":f", "raised ModuleNotFoundError: No module named 'nowhere_at_all'"),
        ("1 / 0", ":f", r"raised ZeroDivisionError: division by zero \(layers\.py:1\)"),
        ("def f(:", ":f", "raised SyntaxError"),
        ("import sys; sys.exit(4)", ":f", r"ended the program \(exit 4\)"),
        ("def layer_norm(x): ...\ndef batch_norm(x): ...", "", "Which one"),
        ("", "", "defines nothing callable"),
    ],
)
def test_cannot_be_loaded(written: Write, text: str, target: str, message: str) -> None:
    with pytest.raises(CannotRunError, match=message):
        load(written(text) + target)


def test_no_such_file_or_module(tmp_path: Path) -> None:
    with pytest.raises(CannotRunError, match="does not exist"):
        load(str(tmp_path / "none.py") + ":f")
    with pytest.raises(CannotRunError, match=r"no module is called 'nowhere\.at_all'"):
        load("nowhere.at_all:f")


def test_the_only_normalization_of_a_file_need_not_be_named(written: Write) -> None:
    assert load(written(GOOD)).__name__ == "layer_norm"


def test_file_inside_a_package(tmp_path: Path) -> None:
    package = tmp_path / "somepackage"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "tools.py").write_text("EPS = 1e-5")
    (package / "norms.py").write_text("from .tools import EPS\ndef layer_norm(x): return EPS")
    assert load(str(package / "norms.py") + ":layer_norm")(np.ones(3)) == 1e-5


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("fork", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_nothing_outlives_a_caller_that_is_killed(written: Write, tmp_path: Path, fork: bool) -> None:
    started = tmp_path / "started"
    target = written(f"""
        import os, pathlib, subprocess
        child = subprocess.Popen(["sleep", "100"])
        pathlib.Path({str(started)!r}).write_text(f"{{os.getpid()}} {{child.pid}} ")
        while True: pass
    """)
    caller = multiprocessing.get_context("fork").Process(
        target=check_target, args=(target, Options()), kwargs={"fork": fork}
    )
    with warnings.catch_warnings():  # other tests may have started threads
        warnings.simplefilter("ignore")
        caller.start()
    pids = _eventually(lambda: started.exists() and started.read_text().endswith(" ") and started.read_text().split())
    caller.kill()
    caller.join()
    assert len(pids) == 2
    try:
        _eventually(lambda: not any(_is_running(int(pid)) for pid in pids))
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


def _eventually(what: Callable[[], Any]) -> Any:
    """Wait for something that is true in the end."""
    for _ in range(400):
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it never came true")
