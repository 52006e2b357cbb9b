"""The processor that kernels are compiled for: this one, unless Numba's own variables name another."""

import os
import platform
from functools import lru_cache

from llvmlite import binding


def has(feature: str) -> bool:
    """Whether it has some instructions of x86; those of ARM have them all."""
    return platform.machine().lower() in ("aarch64", "arm64") or f"+{feature}" in features()


def name() -> str:
    """As LLVM calls it."""
    return os.environ.get("NUMBA_CPU_NAME") or str(binding.get_host_cpu_name())


@lru_cache(maxsize=1)
def features() -> str:
    """Its features, as LLVM names them."""
    chosen = os.environ.get("NUMBA_CPU_FEATURES", "" if name().lower() == "generic" else None)
    return str(binding.get_host_cpu_features().flatten()) if chosen is None else chosen
