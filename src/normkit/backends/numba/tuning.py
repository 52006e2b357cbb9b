"""Tuning: every constant that was measured rather than derived.

None of them changes what a kernel computes, but those that cut up sums decide their order and so the last bits.
Kernels read them as integers of their module, as Numba compiles those as constants.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Tuning:
    """Sizes at which the work is cut up, and distances at which memory is prefetched."""

    # which family, and which threads

    min_run_length: int = 16
    """From this S on, the family is runs rather than columns."""

    single_thread_elements: int = 32768
    """Below so many elements, one thread is done before others could be woken."""

    # when an output is streamed

    stream_bytes: int = 24 << 20
    """From so many bytes read and written on, the output is streamed: the caches could not keep it all."""

    unaligned_stream_factor: int = 2
    """So many times more bytes are needed where rows share cache lines, whose parts may reach memory separately."""

    dweight_reuse_elements: int = 256
    """Rows shorter than this are not streamed backward: dweight is read again before the streams are through."""

    # how runs are cut up

    affine_parts: int = 64
    """The gradients of weight and bias are summed in about so many parts."""

    max_runs_of_part: int = 128
    """So many runs, at most, are summed into one part in the compute dtype."""

    min_runs_of_part: int = 16
    """So many short runs make one part even where there are few, as each part costs time of its own."""

    block_elements: int = 4096
    """So many elements of a run, at most, are summed in the compute dtype."""

    sample_elements: int = 64
    """The mean of so many elements is the first pivot of a block."""

    far_pivot_share: float = 0.75
    """A block is summed again about its mean if more of its second moment than this is due to a pivot far from it."""

    prefetch_run_elements: int = 1024
    """A run of so many elements is prefetched while the one before it is summed."""

    prefetch_elements: int = 512
    """Of shorter runs, what lies so many elements ahead is prefetched."""

    group_bytes: int = 16_384
    """So many bytes of neighbouring statistics, at most, are interleaved where each lies in one piece."""

    # how columns are cut up

    max_tile_columns: int = 2048
    """So many columns, at most, make a tile where each row has its own weight."""

    tile_columns: int = 4096
    """About so many columns make a tile of wide rows elsewhere."""

    folded_columns: int = 1536
    """Rows are folded into one of at most so many columns."""

    conflict_elements: int = 1024
    """Rows a multiple of so many elements apart compete for the same sets of the L1 cache."""

    aligned_elements: int = 32
    """A row width that is a multiple of this keeps rows of every dtype aligned with cache lines."""

    max_chunk_rows: int = 128
    """So many folded rows, at most, are summed before they are merged."""

    min_chunk_rows: int = 32
    """Fewer rows are folded rather than leave less than so many in a chunk."""

    chunk_multiple: int = 8
    """Where A is 1, the chunks come in multiples of this, which threads share evenly."""

    block_rows: int = 128
    """So many rows, at most, are summed in the compute dtype."""

    group_rows: int = 16
    """So many rows are added at once, for which a vector of sums is read and written once."""

    sample_rows: int = 8
    """The mean of so many rows is the first pivot of a block."""

    prefetch_row_elements: int = 64
    """Of each row, what lies so many elements ahead is prefetched."""

    # how an output is written

    written_rows: int = 8
    """So many rows of columns, at most, are written together, for which parameters are read once."""

    page_lines: int = 64
    """A load waits for an earlier store that lies a multiple of so many cache lines from it."""


TUNING: Final = Tuning()
