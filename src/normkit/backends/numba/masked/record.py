"""The record of a call of a masked kernel."""

from struct import Struct
from typing import Final

import numpy as np

# addresses; the first two are read by threads.py
ADDRESSES: Final = (
    "function", "phases",
    "x", "y", "dy", "dx",
    "weights", "totals",  # of positions, and the sum of those of each statistic
    "weight", "bias", "mean", "mean_lo", "var", "rstd",
    "dweight", "dbias",  # of each row of a statistic
)  # fmt: skip
SIZES: Final = (
    "num_stats", "outer", "spans", "size",
    "outer_stride",  # elements from one piece of a statistic to the next
    "period",  # how many statistics share a row of weights, and their number of weights, before the next sample's
    "sample_step",  # rows of weights from one piece to the next
    "stream", "interleave_bytes",
)  # fmt: skip
CALL_STRUCT: Final = Struct(f"{len(ADDRESSES)}qd{len(SIZES)}q")
RECORD: Final = np.dtype(
    [*((name, np.int64) for name in ADDRESSES), ("eps", np.float64), *((name, np.int64) for name in SIZES)], align=True
)
