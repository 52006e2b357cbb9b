"""What a kernel is told by a call: one record, of which the call packs the beginning and its sort the rest."""

from struct import Struct
from typing import Final

import numpy as np

LINE: Final = 64  # bytes of a cache line, and of a vector

# Addresses, and a few numbers,
ADDRESSES: Final = (
    "function",  # the kernel's own, for the team that runs it, which reads these two only,
    "phases",  # to be run: a bit each
    "x", "y", "residual", "dy", "dx", "weight", "bias", "mean", "var", "rstd",  # data and statistics,
    "shift",  # and what is added last, which says where bounds hold a result; 0: there are none
    "running_mean", "running_var", "batches",  # to be moved towards the statistics of a batch, and counted; 0: none
    "partial", "coefficients",  # scratch: sums of parts, and what follows from them
    "dweight", "dbias", "dweights",  # gradients of weight and bias, and both by part
)  # fmt: skip
NUMBERS: Final = ("eps", "momentum", "low", "high")
# and by the sort of calls that it is one of.
SIZES: Final = (
    "a", "r", "k", "s",  # the view
    "a_period", "a_step", "r_step", "k_step", "s_run", "s_step", "affine_size",  # where a weight lies
    "affine_parts", "chunk", "tile", "fold",  # how the work is cut up
    "centred", "given", "stream", "turned",
    "together",  # bytes of input that neighbouring units may have together where each lies in many places
)  # fmt: skip
OF_CALL: Final = Struct(f"{len(ADDRESSES)}q{len(NUMBERS)}d")
OF_SORT: Final = Struct(f"{len(SIZES)}q")
RECORD: Final = np.dtype(
    [
        *((name, np.int64) for name in ADDRESSES),
        *((name, np.float64) for name in NUMBERS),
        *((name, np.int64) for name in SIZES),
    ],
    align=True,
)
PHASES: Final = 5  # at most
ADD_PARTS: Final = 4  # the phase of a backward kernel that adds up gradients of weight and bias
