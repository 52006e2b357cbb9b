"""Tuning: every constant that was measured rather than derived.

None of them decides what a kernel computes, but those that cut up sums decide their order, and so the last bits.
Kernels read them through integers of their own module, as Numba compiles those as constants.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Tuning:
    """Sizes at which the work is cut up, and distances at which memory is prefetched."""

    # which family of kernels, and how many threads

    min_run_length: int = 16
    """The smallest S for which runs are walked rather than columns summed."""

    single_thread_elements: int = 32768
    """The size of an input from which on waking several threads pays."""

    single_thread_partials: int = 4096
    """The number of partial dweights up to which the calling thread sums them: waiting for the others takes longer."""

    # when an output is streamed

    stream_bytes: int = 24 << 20
    """The size of what is read and written from which on the output is streamed: no cache could keep it."""

    unaligned_stream_factor: int = 2
    """How many times larger that is where rows share cache lines, whose parts may reach memory separately."""

    dweight_reuse_elements: int = 256
    """The row length below which dx is not streamed: dweight, read again soon, would wait for the stores."""

    # how runs are cut up

    dweight_parts: int = 64
    """The number of partial dweights aimed at."""

    max_runs_of_part: int = 128
    """The largest number of runs summed into a partial dweight in the compute dtype."""

    min_runs_of_part: int = 16
    """The number of short runs in a partial dweight even where there are few, as each partial costs time."""

    block_elements: int = 4096
    """The largest number of elements of a run summed in the compute dtype before a merge in float64."""

    sample_elements: int = 64
    """The number of elements whose mean is the first pivot of a block."""

    far_pivot_share: float = 0.75
    """The share of a block's second moment, due to a far pivot, above which it is summed again about its mean."""

    prefetch_run_elements: int = 1024
    """The run length from which on a whole run is prefetched while the one before it is summed."""

    prefetch_elements: int = 512
    """The distance at which shorter runs are prefetched."""

    batch_bytes: int = 16_384
    """The size of neighbouring statistics taken together where each lies in one piece."""

    # how columns are cut up

    max_tile_columns: int = 2048
    """The largest width of a tile where each row has its own weight."""

    tile_columns: int = 4096
    """The width of a tile of other wide rows."""

    folded_columns: int = 1536
    """The largest width of a row that several rows are folded into."""

    conflict_elements: int = 1024
    """The distance between rows, or a multiple of it, at which they compete for the same sets of the L1 cache."""

    aligned_elements: int = 32
    """The common divisor of row width and that distance which still aligns rows of every dtype with cache lines."""

    max_chunk_rows: int = 128
    """The largest number of folded rows in a chunk."""

    min_chunk_rows: int = 32
    """The number of folded rows in a chunk below which fewer rows are folded."""

    chunk_multiple: int = 8
    """The multiple that the number of chunks is where A is 1, so that threads share them evenly."""

    block_rows: int = 128
    """The largest number of rows summed in the compute dtype before a merge in float64."""

    group_rows: int = 16
    """The number of rows added at once, for which a vector of sums is loaded and stored once."""

    sample_rows: int = 8
    """The number of rows whose mean is the first pivot of a block."""

    prefetch_row_elements: int = 64
    """The distance at which rows are prefetched."""

    # how an output is written

    written_rows: int = 8
    """The largest number of rows written together, for which the parameters of columns are loaded once."""

    page_lines: int = 64
    """The distance in cache lines, or a multiple of it, at which a load waits for a store before it."""


TUNING: Final = Tuning()
