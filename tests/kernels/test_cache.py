"""What is compiled, when, and where it is kept."""

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from numba import config

import normkit
from normkit.backends import cpu, numba
from normkit.backends.numba import jit
from normkit.spec import Norm
from tests.cases import Case, draw
from tests.kernels.run import run
from tests.kernels.test_processes import in_threads

CASE = Case(Norm("batch"), (6, 5, 23, 23), str)


def python(code: str, **environment: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_importing_the_package_imports_nothing_heavy() -> None:
    heavy = {"numba", "llvmlite", "matplotlib", "rich", "typer", "sklearn"}
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


def test_an_install_that_cannot_be_written_without_a_home(tmp_path: Path) -> None:
    package = tmp_path / "normkit"
    shutil.copytree(Path(normkit.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in [package, *(path for path in package.rglob("*") if path.is_dir())]:
        (folder / "__pycache__").write_text("in the way")  # a mode would not stop the superuser
    nowhere = str(tmp_path / "normkit" / "__pycache__" / "nowhere")
    printed = python(
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n" + USE_WITHOUT_CACHE,
        PYTHONDONTWRITEBYTECODE="1", HOME=nowhere, XDG_CACHE_HOME=nowhere, NUMBA_CACHE_DIR=nowhere,
    )  # fmt: skip
    assert printed.splitlines()[-1] == "right"
    assert "normkit: kernels are compiled anew in this process, as they cannot be cached" in printed


LOAD = """
import numpy as np
from normkit.backends.numba import columns, runs, team
if team._parallel():
    team._trampoline()
half = np.uint16, np.float32
walks = runs.forward(*half, False, True, True), runs.backward(*half, False, True)
walks += (runs.forward(*half, True, False, False),)
sums = columns.forward(*half, True, True), columns.backward(*half, True)
print(*(kernel.cache_hits for kernel in (*walks, *sums, *team._keep)))
"""


def test_the_next_process_loads_every_kind_of_kernel() -> None:
    python(LOAD)
    assert set(python(LOAD).split()) == {"1"}


def test_any_changed_source_changes_the_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "numba"
    shutil.copytree(Path(jit.__file__).parent, folder, ignore=shutil.ignore_patterns("__pycache__"))
    digest = jit._sources.__wrapped__
    original = digest()
    monkeypatch.setattr(jit, "__file__", str(folder / "jit.py"))
    assert digest() == original
    for path in folder.glob("*.py"):
        text = path.read_text()
        path.write_text(text + "# changed\n")
        assert digest() != original, path.name
        path.write_text(text)
    assert digest() == original


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of its own."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    return tmp_path


def compile_one() -> None:
    """Compile a kernel that does nothing."""

    @jit.kernel
    def nothing(data, part, parts, phase):
        pass


def test_changed_sources_give_new_entries(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for digest in ("first", "second", "second"):
        monkeypatch.setattr(jit, "_sources", lambda digest=digest: digest)
        compile_one()
    entries = sorted(path.name for path in cache.rglob("*.nbc"))
    assert len(entries) == 2
    assert "first" in entries[0]
    assert "second" in entries[1]


def test_a_damaged_cache_is_passed_over(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    compile_one()
    for path in cache.rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[:7])
    with caplog.at_level(logging.INFO, "normkit"):
        compile_one()
    assert "cannot be cached" in caplog.text


@pytest.mark.parametrize(("limit", "lines"), [(-1.0, 1), (1e9, 0)])
def test_a_slow_compilation_is_logged(
    limit: float, lines: int, cache: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jit, "_SLOW_COMPILE", limit)
    with caplog.at_level(logging.INFO, "normkit"):
        compile_one()
    assert [record.name for record in caplog.records] == ["normkit"] * lines
    assert caplog.text.count("compiled kernel nothing in") == lines


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The names of the kernels compiled, or loaded, from now on."""
    names: list[str] = []

    def spy(function):
        names.append(function.__name__)
        return jit.kernel(function)

    def clear() -> None:
        cpu._launch.cache_clear()
        numba._compiled.cache_clear()
        numba._compile.cache_clear()

    for name, module in list(sys.modules.items()):
        if name.startswith("normkit.backends.numba.") and hasattr(module, "kernel") and module is not jit:
            monkeypatch.setattr(module, "kernel", spy)
    clear()
    yield names
    clear()


def test_a_call_compiles_only_the_kernel_it_needs(compiled: list[str]) -> None:
    data = draw(CASE, torch.float32)
    with torch.no_grad(), normkit.use_backend("numba"):
        normkit.functional.batch_norm(data.x, None, None, training=True)
    assert compiled == ["runs_forward"]
    run(CASE, data)
    assert compiled == ["runs_forward", "runs_backward"]
    run(CASE, draw(CASE, torch.float32, last=True))
    assert compiled[2:] == ["columns_forward", "columns_backward"]
    run(CASE, data)
    assert len(compiled) == 4


def test_threads_that_come_at_once_compile_once(compiled: list[str]) -> None:
    data = draw(CASE, torch.float32)
    assert len(in_threads(8, lambda: run(CASE, data))) == 8
    assert sorted(compiled) == ["runs_backward", "runs_forward"]


@pytest.mark.slow
def test_float16_without_instructions_is_left_to_torch() -> None:
    code = "import torch; from normkit.backends import choose; x = torch.ones(9, 9, 99, 99); print(*choose(x.half()))"
    assert "no instructions that convert float16" in python(code, NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="")
