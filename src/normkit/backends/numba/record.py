"""The record of a call: all that a kernel reads of it, a struct packed by Python."""

from struct import Struct
from typing import Final

import numpy as np

LINE: Final = 64  # bytes of a cache line, and of a vector

# What differs from call to call: addresses, in the order of ForwardPointers, and a few floats
ADDRESSES: Final = (
    "function", "phases",  # the kernel itself and the phases to run, a bit each: read by threads.py
    "x", "y", "residual", "weight", "bias",
    "mean", "var", "rstd",
    "shift",  # what is added last to each result, from which backward finds active bounds; 0: not needed
    "running_mean", "running_var", "num_batches_tracked",  # updated by forward; 0: there are none
    "dy", "dx", "dweight", "dbias",
    "chunk_sums", "coefficients", "partials",  # scratch: sums of chunks, what follows from them, partial dweights
)  # fmt: skip
FLOATS: Final = ("eps", "momentum", "lower", "upper")
# What is the same for all calls of one launch
SIZES: Final = (
    "a", "r", "k", "s",  # the view
    "a_period", "a_step", "r_step", "k_step", "s_run", "s_step", "affine_size",  # the offset of a weight
    "num_partials", "chunk", "tile", "fold",  # the plan
    "subtract_mean", "precomputed", "stream", "transposed",
    "interleave_bytes",  # of neighbouring statistics of several rows each, taken together
)  # fmt: skip
CALL_STRUCT: Final = Struct(f"{len(ADDRESSES)}q{len(FLOATS)}d")
SHAPE_STRUCT: Final = Struct(f"{len(SIZES)}q")
RECORD: Final = np.dtype(
    [
        *((name, np.int64) for name in ADDRESSES),
        *((name, np.float64) for name in FLOATS),
        *((name, np.int64) for name in SIZES),
    ],
    align=True,
)
FIRST_STRUCT: Final = Struct("2q")  # of a RECORD: function and phases
PHASES: Final = 5  # at most
REDUCE_PARTIALS: Final = 4  # the phase of a backward kernel that sums the partial dweights and dbiases
