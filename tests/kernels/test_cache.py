"""What is compiled, when, and where it is kept."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from numba.core import config

import normkit
from normkit.backends import eligibility, processor
from normkit.backends.numba import kernel_cache
from normkit.spec import Norm
from tests.cases import Case, draw
from tests.kernels.run import run
from tests.kernels.test_processes import in_threads

CASE = Case(Norm("batch"), (6, 5, 23, 23))


def python(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"numba", "llvmlite", "matplotlib", "rich", "typer", "sklearn", "torch._dynamo"}
    code = "import sys, torch; before = set(sys.modules); import normkit; print(*(set(sys.modules) - before))"
    added = set(python(code).split())
    assert "normkit" in added
    assert added & heavy == set()


USE_WITHOUT_CACHE = """
import logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(name)s: %(message)s")
import torch, normkit
assert normkit.__file__.startswith(sys.path[0]), normkit.__file__
x = torch.randn(4, 3, 500)
with normkit.use_backend("numba"):
    y = normkit.functional.layer_norm(x, (500,))
torch.testing.assert_close(y, torch.nn.functional.layer_norm(x, (500,)))
print("right")
"""


@pytest.mark.parametrize("chosen", ["", pytest.param("nowhere", marks=pytest.mark.slow)])
def test_an_install_that_cannot_be_written_without_a_home(chosen: str, tmp_path: Path) -> None:
    package = tmp_path / "normkit"
    shutil.copytree(Path(normkit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("in the way")  # a mode would not stop the superuser
    nowhere = str(tmp_path / "normkit" / "__pycache__" / "nowhere")
    printed = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + USE_WITHOUT_CACHE,
        PYTHONDONTWRITEBYTECODE="1", HOME=nowhere, XDG_CACHE_HOME="", NUMBA_CACHE_DIR=chosen and nowhere,
    )  # fmt: skip
    assert printed.splitlines()[-1] == "right"
    assert printed.count("normkit compiles kernels anew in each process") == 1


LOAD = """
import sys
import numpy as np
from normkit.backends.numba.kernel_cache import address
from normkit.backends.numba.threads import threading_layer
half = np.uint16, np.float32
address("runs.forward", *half, False, True, True)
address("runs.forward", *half, True, False, False)
address("runs.backward", *half, False, True)
address("columns.forward", *half, True, True)
address("columns.backward", *half, True)
threading_layer()
print("numba" in sys.modules)
"""


def test_the_next_process_loads_every_kind_of_kernel_without_numba() -> None:
    python(LOAD)
    assert python(LOAD) == "False"


def test_any_changed_source_changes_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "numba"
    shutil.copytree(Path(kernel_cache.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    original = kernel_cache._identity("module")
    monkeypatch.setattr(kernel_cache, "_sources", kernel_cache._sources.__wrapped__)  # which is asked once a process
    monkeypatch.setattr(kernel_cache, "__file__", str(folder / "kernel_cache.py"))
    assert kernel_cache._identity("module") == original
    paths = sorted(folder.rglob("*.py"))
    assert len({path.parent for path in paths}) == 4
    for path in paths:
        text = path.read_text()
        path.write_text(text + "# changed\n")
        assert kernel_cache._identity("module") != original, path
        path.write_text(text)
    assert kernel_cache._identity("module") == original


# the last is one that Numba does not have yet
@pytest.mark.parametrize(
    "variable",
    [
        "CPU_NAME",
        "CPU_FEATURES",
        "ENABLE_AVX",
        "OPT",
        "LOOP_VECTORIZE",
        "SLP_VECTORIZE",
        "DEBUGINFO",
        "BOUNDSCHECK",
        "DISABLE_INTEL_SVML",
        "EXTEND_VARIABLE_LIFETIMES",
        "LLVM_REFPRUNE_PASS",
        "FUTURE",
    ],
)
def test_another_processor_or_setting_changes_the_identity(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = kernel_cache._identity("module")
    monkeypatch.setattr(processor, "features", processor.features.__wrapped__)  # which is asked once a process
    assert kernel_cache._identity("module") == original
    monkeypatch.setenv(f"NUMBA_{variable}", "0")
    assert kernel_cache._identity("module") != original


def test_a_setting_that_changes_no_code_does_not_change_the_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    original = kernel_cache._identity("module")
    for variable in ("CACHE_DIR", "NUM_THREADS", "THREADING_LAYER"):
        monkeypatch.setenv(f"NUMBA_{variable}", "1")
    assert kernel_cache._identity("module") == original


def test_the_file_of_settings_changes_the_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = {kernel_cache._identity("module")}
    for text in ("opt: 0", "opt: 1"):
        (tmp_path / ".numba_config.yaml").write_text(text)
        seen.add(kernel_cache._identity("module"))
    assert len(seen) == 3


@pytest.mark.timeout(20)
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_pipe_in_the_place_of_the_file_of_settings_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = kernel_cache._identity("module")
    monkeypatch.chdir(tmp_path)
    os.mkfifo(".numba_config.yaml")
    assert kernel_cache._identity("module") == original


@pytest.mark.parametrize(("name", "value", "is_kept"), [("BOUNDSCHECK", 1, False), ("THREADING_LAYER", "safe", True)])
def test_a_kernel_of_settings_that_no_later_process_sees_is_not_kept(
    name: str, value: object, is_kept: bool, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, name, value)
    assert kernel_cache.find("module")
    assert bool(kept(tmp_path)) == is_kept


def kept(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("home", [None, "", "no/such"])
def test_a_user_without_a_home_keeps_nothing(
    home: str | None, made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for variable in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(variable, raising=False)
    if home is not None:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])  # nor is the user known
    monkeypatch.chdir(tmp_path)
    assert kernel_cache.find("module")
    assert "this user has no home" in caplog.text
    assert kept(tmp_path) == []


def test_what_cannot_be_written_whole_is_not_left(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_paths: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    assert kernel_cache.find("module")
    assert kept(tmp_path) == []


def test_each_choice_is_kept(made: list[str], tmp_path: Path) -> None:
    addresses = [kernel_cache.find("module", int, choice) for choice in (False, True, False)]
    assert len(set(addresses)) == 3  # loaded anew each time: who asks keeps it
    assert len(made) == 2
    assert [path.name.partition("-")[2][:6] for path in kept(tmp_path)] == ["int-0-", "int-1-"]


def test_threads_that_come_at_once_make_one(made: list[str], forgotten: None) -> None:
    assert len(set(in_threads(8, lambda: kernel_cache.address("module")))) == 1
    assert len(made) == 1


def test_changed_sources_give_new_entries(made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for sources in ("first", "second", "second"):
        monkeypatch.setattr(kernel_cache, "_sources", lambda sources=sources: sources)
        kernel_cache.find("module")
    assert len(made) == 2
    assert [path.name.partition("-")[0] for path in kept(tmp_path)] == ["module", "module"]


@pytest.mark.parametrize("damage", [lambda code: code[:7], lambda code: code[:-1], lambda code: code + b"0"])
def test_a_damaged_file_is_made_anew(damage: Callable[[bytes], bytes], made: list[str], tmp_path: Path) -> None:
    kernel_cache.find("module")
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    for _ in range(2):
        kernel_cache.find("module")
    assert len(made) == 2
    assert path.read_bytes() == whole


def test_a_line_says_that_kernels_are_compiled_before_the_first(
    made: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_cache.logger, "warning", made.append)
    for choice in (1, 2, 1):
        kernel_cache.find("module", choice)
    line, *compiled = made
    assert f"they are kept in {tmp_path / 'normkit'} for later processes" in line
    assert compiled == ["1", "2"]


def test_each_compilation_is_logged(made: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "normkit"):
        for _ in range(2):
            kernel_cache.find("module")
    assert caplog.text.count("compiled kernel module in") == 1


FIRST_USE = """
import warnings
warnings.simplefilter("error")
from normkit.backends.numba import kernel_cache
kernel_cache.find("thread_start")
kernel_cache.find("thread_start")
"""


def test_the_line_is_printed_and_is_no_error_where_warnings_are(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIRST_USE],
        env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.count("normkit compiles kernels for this processor") == 1


@pytest.fixture
def compiled(forgotten: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels compiled, or loaded, from now on."""
    names: list[str] = []
    find = kernel_cache.find

    def spy(module: str, *choices: object) -> int:
        names.append(module)
        return find(module, *choices)

    monkeypatch.setattr(kernel_cache, "find", spy)
    return names


def test_a_call_compiles_only_the_kernel_it_needs(compiled: list[str]) -> None:
    data = draw(CASE, torch.float32)
    with torch.no_grad(), normkit.use_backend("numba"):
        normkit.functional.batch_norm(data.x, None, None, training=True)
    assert compiled == ["runs.forward"]
    run(CASE, data)
    assert compiled == ["runs.forward", "runs.backward"]
    run(CASE, draw(CASE, torch.float32, last=True))
    assert compiled[2:] == ["columns.forward", "columns.backward"]
    run(CASE, data)
    assert len(compiled) == 4


def test_threads_that_come_at_once_compile_once(compiled: list[str]) -> None:
    data = draw(CASE, torch.float32)
    assert len(in_threads(8, lambda: run(CASE, data))) == 8
    assert sorted(compiled) == ["runs.backward", "runs.forward"]


LEFT = """
import torch, normkit
x = torch.randn(8, 16, 40, 40)
layer = normkit.BatchNorm2d(16).eval()
expected = torch.nn.BatchNorm2d(16).eval()(x)
assert torch.equal(layer(x), expected)
assert torch.equal(torch.compile(layer, backend="aot_eager")(x), expected)
print(*normkit.backends.choose(torch.ones(9, 9, 400, 400)))
"""


def test_without_compilation_all_is_left_to_torch(tmp_path: Path) -> None:
    assert "NUMBA_DISABLE_JIT is set" in python(LEFT, NUMBA_CACHE_DIR=str(tmp_path), NUMBA_DISABLE_JIT="1")
    assert not kept(tmp_path)


@pytest.mark.slow
def test_float16_without_instructions_is_left_to_torch() -> None:
    code = "import torch; from normkit.backends import choose; x = torch.ones(9, 9, 99, 99); print(*choose(x.half()))"
    assert "no instructions that convert float16" in python(code, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")


@pytest.mark.parametrize(("value", "disables"), [("1", True), ("0", False), ("", False), ("true", False)])
def test_compilation_is_disabled_as_numba_reads_it(value: str, disables: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", value)
    assert (eligibility._missing() is not None) == disables
