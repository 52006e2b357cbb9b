"""Kernels that are known to nobody, and quickly made ones."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from normkit.backends import kernel_passes
from normkit.backends.numba import kernel_cache
from normkit.backends.numba.compile import kernel


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No kernel is known at the beginning, and none of this test to others."""
    caches = kernel_passes._launch, kernel_cache.address, kernel_cache._once
    for known in caches:
        known.cache_clear()
    yield
    for known in caches:
        known.cache_clear()


@cache
def _nothing() -> bytes:
    return kernel(lambda data, part, parts, phase: None)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is compiled from now on, which is a kernel that does nothing; into an empty cache, in `tmp_path`."""
    names: list[str] = []

    def make_kernel(*choices: object) -> bytes:
        names.append("".join(map(str, choices)))
        return _nothing()

    monkeypatch.setattr(kernel_cache, "import_module", lambda _name: SimpleNamespace(make_kernel=make_kernel))
    monkeypatch.setattr(kernel_cache, "_warned", [])
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    return names
