"""Kernels that are compiled before they are needed, and what became of them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch

from normkit.backends.dtypes import KERNEL_DTYPES
from normkit.backends.eligibility import unsupported_reason


class Kernels(NamedTuple):
    """What a process has needed of the kernels on disk.

    Args:
        compiled: The kernels that were compiled, by the names of their files.
        loaded: Those that an earlier process had left on disk.
        problem: Why one of those that were compiled could not be kept; None: all are.
    """

    compiled: tuple[str, ...]
    loaded: tuple[str, ...]
    problem: str | None


def missing_kernels(dtypes: Sequence[torch.dtype]) -> str | None:
    """Return why there are no kernels for inputs of one of these dtypes; None if there are."""
    for dtype in dtypes:
        reason = unsupported_reason(torch.ones(1, dtype=dtype), None, None)
        if reason is not None:
            return f"there are no kernels for {dtype}: {reason}"
    return None


def find_kernels(use: Callable[[], object], dtypes: Sequence[torch.dtype]) -> Kernels:
    """Return the kernels that a function needs, and all of some dtypes; those that were used before are left out.

    Args:
        use: The function.
        dtypes: Of inputs; none of those that :func:`missing_kernels` names.
    """
    from normkit.backends.numba.every_kernel import find_all
    from normkit.backends.numba.kernel_cache import FOUND
    from normkit.backends.numba.threads import threading_layer

    before = len(FOUND)
    threading_layer()
    use()
    for dtype in dtypes:
        find_all(KERNEL_DTYPES[dtype])
    found = FOUND[before:]
    return Kernels(
        tuple(kernel.file for kernel in found if kernel.compiled),
        tuple(kernel.file for kernel in found if not kernel.compiled),
        next((kernel.problem for kernel in found if kernel.problem is not None), None),
    )
