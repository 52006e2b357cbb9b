"""What the tests of kernels share."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from normkit.backends.numba import kernel_cache, threads
from normkit.backends.numba.compile import kernel


@pytest.fixture(params=["openmp", "threads"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Each threading layer."""
    if request.param == "threads":
        monkeypatch.setattr(threads, "_parallel", lambda: None)
    elif threads._parallel() is None:
        pytest.skip("no OpenMP runtime here")
    threads._layer.cache_clear()
    yield request.param
    monkeypatch.undo()
    threads._layer.cache_clear()


@cache
def _nothing() -> bytes:
    return kernel(lambda data, part, parts, phase: None)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled from now on, which is a kernel that does nothing; into an empty cache, in `tmp_path`."""
    names: list[str] = []
    nothing = _nothing()  # now, as Numba reads its settings again when it compiles

    def make_kernel(*choices: object) -> bytes:
        names.append("".join(map(str, choices)))
        return nothing

    monkeypatch.setattr(kernel_cache, "import_module", lambda _name: SimpleNamespace(make_kernel=make_kernel))
    monkeypatch.setattr(kernel_cache, "_said", set())
    monkeypatch.setattr(kernel_cache, "FOUND", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return names
