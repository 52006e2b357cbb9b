"""What every test may rely on: a fixed seed, and one thread unless it asks for more.

Tests run side by side; OpenMP teams of several processes on the same cores spin against each other.
"""

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is loaded, and for the processes that tests start

import pytest
import torch


@pytest.fixture(autouse=True)
def _fixed_seed_and_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def tune(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Set constants of `Tuning` that launches depend on, for one test."""
    from normkit.backends import kernel_passes
    from normkit.backends.numba import Launch
    from normkit.backends.numba.tuning import TUNING

    def set_constants(**constants: int) -> None:
        monkeypatch.setattr(sys.modules[Launch.__module__], "TUNING", replace(TUNING, **constants))
        kernel_passes._launch.cache_clear()

    yield set_constants
    monkeypatch.undo()
    kernel_passes._launch.cache_clear()


@pytest.fixture
def forgotten() -> Iterator[None]:
    """No kernel is in memory at the beginning, and none of this test for others."""
    from normkit.backends import kernel_passes
    from normkit.backends.numba import kernel_cache

    caches = kernel_passes._launch, kernel_cache.address, kernel_cache._once
    for known in caches:
        known.cache_clear()
    yield
    for known in caches:
        known.cache_clear()
