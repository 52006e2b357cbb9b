"""What the tests of kernels share."""

from collections.abc import Iterator

import pytest

from normkit.backends.numba import threads


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
