"""Whether this process can make kernels at all."""

import os
from functools import lru_cache
from importlib import util
from typing import Final

from normkit.backends import processor


def _obstacle() -> str | None:
    if not util.find_spec("numba"):
        return "Numba is not installed"
    disabled = os.environ.get("NUMBA_DISABLE_JIT", "").strip()
    return "NUMBA_DISABLE_JIT is set" if disabled.isdigit() and int(disabled) else None


OBSTACLE: Final = _obstacle()
"""Why it cannot; None if it can."""


@lru_cache(maxsize=1)
def converts_float16() -> bool:
    """Whether kernels can; without the instructions LLVM would abort the process."""
    return processor.has("f16c")
