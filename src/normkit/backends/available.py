"""Whether this process can make kernels at all."""

import os
from functools import lru_cache
from importlib import import_module, util

import torch


def _obstacle() -> str | None:
    if not util.find_spec("numba"):
        return "Numba is not installed"
    disabled = os.environ.get("NUMBA_DISABLE_JIT", "").strip()
    return "NUMBA_DISABLE_JIT is set" if disabled.isdigit() and int(disabled) else None


_OBSTACLE = _obstacle()


def obstacle(dtype: torch.dtype) -> str | None:
    """Why it cannot, for a type of input; None if it can."""
    if _OBSTACLE is None and dtype is torch.float16 and not _converts_float16():
        return "this processor has no instructions that convert float16"
    return _OBSTACLE


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
@lru_cache(maxsize=1)
def _converts_float16() -> bool:
    """Whether kernels can; without the instructions LLVM would abort the process."""
    return bool(import_module("normkit.backends.numba.processor").has("f16c"))
