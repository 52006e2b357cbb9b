"""Memory for large results.

The C library takes large blocks from the system anew for each call, and the first touch of every page of 4 KiB costs
more than to normalize what fits into it. Where the system leaves huge pages to those who ask (the setting "madvise" of
Linux, the usual one), asking makes this 512 times rarer. Elsewhere nothing happens.
"""

import ctypes
import mmap
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

import torch
from torch import Tensor

LARGE: Final = 16 << 20  # bytes from which on it is worth a call
HUGE: Final = 2 << 20  # bytes of a huge page


def empty_like(x: Tensor, memory_format: torch.memory_format = torch.preserve_format) -> Tensor:
    """Do what torch.empty_like does, on huge pages where it is large and the system has them."""
    y = torch.empty_like(x, memory_format=memory_format)
    size = y.nbytes
    advise = _advise() if size >= LARGE else None
    if advise is not None:
        begin = -(-y.data_ptr() // HUGE) * HUGE
        end = (y.data_ptr() + size) // HUGE * HUGE
        advise(begin, end - begin, mmap.MADV_HUGEPAGE)  # refused at worst, and then all is as before
    return y


@lru_cache(maxsize=1)
def _advise() -> Callable[[int, int, int], Any] | None:
    """Return madvise of the C library, where there is one that knows of huge pages."""
    try:
        function = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    function.restype = ctypes.c_int
    advise: Callable[[int, int, int], Any] = function
    return advise
