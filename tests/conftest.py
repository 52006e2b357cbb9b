"""What every test may rely on: a fixed seed, and one thread unless it asks for more.

Tests run side by side; OpenMP teams of several processes on the same cores spin against each other.
"""

import os
from collections.abc import Iterator

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
