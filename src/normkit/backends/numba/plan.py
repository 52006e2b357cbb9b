"""Plans: how a view is cut up for the kernels."""

import math
from dataclasses import dataclass
from functools import lru_cache

from normkit.backends.numba.tuning import TUNING
from normkit.spec import View


@dataclass(frozen=True)
class Plan:
    """How one view is cut up.

    Args:
        family: "runs" or "columns": which kernels.
        chunk: For runs the size along A of a partial dweight, for columns the rows of a chunk.
        tile: The columns of a tile.
        fold: How many rows of columns are read as one wider row.
    """

    family: str
    chunk: int
    tile: int = 1
    fold: int = 1


@lru_cache(maxsize=1024)
def plan(view: View) -> Plan:
    """Cut up a view."""
    a, r, k, s = view.shape
    a_period, _, r_step, _, s_run, s_step = view.affine_steps
    elementwise_affine = s_step != 0 and s_run == 1
    # the sums of dweight down many rows would be long ones in runs: columns cut them up
    is_long = s >= TUNING.min_run_length or (r == 1 and k == 1)
    if r_step == 0 and is_long and not (elementwise_affine and r > 1):
        if not elementwise_affine:
            return Plan("runs", chunk=1)
        # one task sums all of a partial dweight, so a chunk holds whole periods
        at_least = min(TUNING.min_runs_of_part, TUNING.single_thread_elements // s)
        runs_of_part = min(max(-(-a // a_period // TUNING.dweight_parts), at_least), TUNING.max_runs_of_part)
        return Plan("runs", chunk=runs_of_part * a_period)
    width = k * s
    if r_step != 0:
        return Plan("columns", chunk=r, tile=-(-width // -(-width // TUNING.max_tile_columns)))
    if width > 2 * TUNING.tile_columns:
        return Plan("columns", chunk=min(r, TUNING.max_chunk_rows), tile=max(1, TUNING.tile_columns // s) * s)
    multiple = TUNING.chunk_multiple if a == 1 else 1
    most = max(1, min(TUNING.folded_columns // width, r // (TUNING.min_chunk_rows * multiple)))
    fold = min(range(most, most // 2, -1), key=lambda fold: _misfit(fold * width))
    chunks = multiple * -(-r // (multiple * TUNING.max_chunk_rows * fold))
    return Plan("columns", chunk=fold * -(-r // (chunks * fold)), tile=width, fold=fold)


def _misfit(width: int) -> float:
    """Return by which factor rows of a width compete for cache sets more than needed, or miss cache lines."""
    common = math.gcd(width, TUNING.conflict_elements)
    return max(common / TUNING.aligned_elements, TUNING.aligned_elements / common)
