"""What this processor's caches hold: how much input it pays to read together, to be read a second time.

It decides the order of the work alone. What is summed, and in which order, does not depend on the machine.
"""

from functools import lru_cache
from pathlib import Path
from typing import Final

SHARED: Final = 3_000_000  # bytes, where a cache that cores share is about as fast as their own (measured: Zen 4)
LARGE: Final = 2 << 20  # of a core's own cache, from which on the shared one is far behind it (Sapphire Rapids)

_SECOND = Path("/sys/devices/system/cpu/cpu0/cache/index2/size")


@lru_cache(maxsize=1)
def together() -> int:
    """Bytes of input that neighbouring units may have together: half of a large cache of a core's own."""
    own = _bytes(_SECOND)
    return own // 2 if own >= LARGE else SHARED


def _bytes(path: Path) -> int:
    """The size that Linux tells of a cache, as in "2048K"; 0 where it tells none."""
    try:
        return int(path.read_text().strip().removesuffix("K")) << 10
    except (OSError, ValueError):
        return 0
