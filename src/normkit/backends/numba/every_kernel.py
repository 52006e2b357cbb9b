"""All kernels of a dtype, found or compiled before they are needed."""

from collections.abc import Iterator
from itertools import product

from normkit.backends.numba.kernel_cache import address
from normkit.backends.numba.launch import STORAGES

_EITHER = (False, True)


def find_all(dtype: str) -> None:
    """Put all kernels of a dtype (a key of STORAGES) into memory, and on disk those that are not there."""
    for module, choices in _kernels():
        address(module, *STORAGES[dtype], *choices)


def _kernels() -> Iterator[tuple[str, tuple[bool, ...]]]:
    """Yield the modules of kernels, with all choices that `launch` can make."""
    for bounds, residual in product(_EITHER, _EITHER):
        yield "runs.forward", (False, bounds, residual)
        yield "columns.forward", (bounds, residual)
    for bounds in _EITHER:
        yield "runs.backward", (False, bounds)
        yield "columns.backward", (bounds,)
    # with a weight for each element there are neither bounds nor a residual
    yield "runs.forward", (True, False, False)
    yield "runs.backward", (True, False)
    yield "masked.forward", ()
    yield "masked.backward", ()
