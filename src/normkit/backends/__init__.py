"""Which implementation runs, and why.

==========  ==========================================================  ===================================
back end    what it is                                                  chosen for
==========  ==========================================================  ===================================
``numba``   kernels of our own (:mod:`normkit.backends.numba`)          CPU tensors worth a kernel
``aten``    torch's own operations                                      small inputs, other devices, tracing
``eager``   plain torch operations, differentiable any number of times  torch.func, forward-mode AD
==========  ==========================================================  ===================================

Inside a graph of torch.compile the kernels run as registered operators (:mod:`normkit.backends.compiled`); an exported
graph, and one without gradients where the compiler fuses the norm, holds torch's own operations.
:mod:`normkit.backends.dispatch` decides.
"""

from normkit.backends.call import Call, Epilogue
from normkit.backends.dispatch import Choice, choose, normalize
from normkit.backends.setting import NAMES, set_backend, use_backend

__all__ = [
    "NAMES",
    "Call",
    "Choice",
    "Epilogue",
    "choose",
    "normalize",
    "set_backend",
    "use_backend",
    "watched_kernels",
]
