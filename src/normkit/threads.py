"""The number of threads that a training or a benchmark computes with, and of processes that run side by side."""

import os
from typing import Final

from normkit.errors import UserError

MAX_THREADS: Final = 256  # far more of them crash OpenMP


def check_threads(threads: int) -> None:
    """Raise a UserError for a number of threads that cannot be used."""
    if not 1 <= threads <= MAX_THREADS:
        raise UserError(f"`threads` must be between 1 and {MAX_THREADS}, not {threads}")


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
