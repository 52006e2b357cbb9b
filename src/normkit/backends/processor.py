"""The processor that kernels are compiled for: its name, its instructions and its caches.

It is this machine's, unless Numba's own variables name another. llvmlite is imported only when it is asked.
"""

import os
import platform
from functools import lru_cache
from pathlib import Path
from typing import Final

SHARED_CACHE_BYTES: Final = 3_000_000
"""Input to interleave where the cache that cores share is about as fast as their own (measured on Zen 4)."""

LARGE_L2_BYTES: Final = 2 << 20
"""The size of an L2 cache from which on the shared one is far behind it (measured on Sapphire Rapids)."""

_L2_SIZE = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


def has(feature: str) -> bool:
    """Return whether the processor has these x86 instructions; ARM has the equivalent of all of them."""
    return platform.machine().lower() in ("aarch64", "arm64") or f"+{feature}" in features()


def name() -> str:
    """Return LLVM's name of the processor."""
    from llvmlite import binding

    return os.environ.get("NUMBA_CPU_NAME") or str(binding.get_host_cpu_name())


@lru_cache(maxsize=1)
def features() -> str:
    """Return the features of the processor, in LLVM's notation."""
    from llvmlite import binding

    chosen = os.environ.get("NUMBA_CPU_FEATURES")
    if chosen is None and name().lower() == "generic":
        return ""
    return str(binding.get_host_cpu_features().flatten()) if chosen is None else chosen


@lru_cache(maxsize=1)
def has_large_l2() -> bool:
    """Return whether each core has a large L2 cache of its own, which leaves the shared cache far behind."""
    return _bytes_of(_L2_SIZE) >= LARGE_L2_BYTES


@lru_cache(maxsize=1)
def interleave_bytes() -> int:
    """Return how many bytes of input to interleave: what a cache still holds when it is read a second time.

    It decides the order of the work. What is summed, and in which order, does not depend on it.
    """
    return _bytes_of(_L2_SIZE) // 2 if has_large_l2() else SHARED_CACHE_BYTES


def _bytes_of(path: Path) -> int:
    """Return the size that Linux reports of a cache, such as "2048K"; 0 where it reports none."""
    try:
        return int(path.read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0
