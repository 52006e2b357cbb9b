"""CPU kernels in Numba: they take addresses and sizes, and know nothing of torch.

:func:`launch` prepares the calls of one :class:`Variant` and compiles its kernel; :func:`forward` and :func:`backward`
run it. Two families of kernels, :mod:`runs` and :mod:`columns`, cover every view. The view alone chooses between them
and cuts up the work, so the same input gives the same bits whatever the number of threads.
"""

from normkit.backends.numba.launch import (
    STORAGES,
    BackwardPointers,
    ForwardPointers,
    Launch,
    Variant,
    backward,
    forward,
    launch,
)

__all__ = ["STORAGES", "BackwardPointers", "ForwardPointers", "Launch", "Variant", "backward", "forward", "launch"]
