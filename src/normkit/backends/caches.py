"""What this processor's caches hold: whether a core's own is large, and how much input it pays to read together.

It decides where kernels begin, and the order of their work. What they sum, and in which order, does not depend on it.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

SHARED: Final = 3_000_000  # bytes, where a cache that cores share is about as fast as their own (measured: Zen 4)
LARGE: Final = 2 << 20  # of a core's own cache, from which on the shared one is far behind it (Sapphire Rapids)

_SECOND = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


@lru_cache(maxsize=1)
def own_is_large() -> bool:
    """Whether a core has a large cache of its own, and so one that is far behind it to share."""
    return _bytes(_SECOND) >= LARGE


@lru_cache(maxsize=1)
def together() -> int:
    """Bytes of input that neighbouring units may have together, to be read a second time."""
    return _bytes(_SECOND) // 2 if own_is_large() else SHARED


def _bytes(path: Path) -> int:
    """The size that Linux tells of a cache, as in "2048K"; 0 where it tells none."""
    try:
        return int(path.read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0
