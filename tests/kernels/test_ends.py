"""The end of a run of a half type is read and written right, with instructions that mask its numbers and without."""

from typing import Any

import numpy as np
import pytest
from numba import njit
from numpy.typing import NDArray

from normkit.backends.numba import memory
from normkit.backends.numba.memory import load_part, store_part

NUMBERS = np.arange(1, 19, dtype=np.float32)
STORED: dict[str, NDArray[Any]] = {
    "bfloat16": (NUMBERS.view(np.uint32) >> 16).astype(np.uint16),
    "float16": NUMBERS.astype(np.float16).view(np.int16),
}


@pytest.mark.parametrize("lacks_masks", [False, True])
@pytest.mark.parametrize("dtype", STORED)
def test_an_end_is_copied_and_nothing_else_written(
    dtype: str, lacks_masks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_lacks_masks", lambda _stored: lacks_masks)

    @njit
    def copy(x: Any, y: Any, count: int) -> None:
        store_part(y, 1, load_part(x, 1, count), count)

    x = STORED[dtype]
    for count in range(1, 17):
        y = np.full_like(x, 7)
        copy(x, y, count)
        assert np.array_equal(y[1 : 1 + count], x[1 : 1 + count])
        assert np.all(np.delete(y, np.s_[1 : 1 + count]) == 7)


@pytest.mark.parametrize("lacks_masks", [False, True])
@pytest.mark.parametrize("dtype", STORED)
def test_lanes_behind_an_end_are_zero(dtype: str, lacks_masks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_lacks_masks", lambda _stored: lacks_masks)

    @njit
    def read(x: Any, y: Any, count: int) -> None:
        memory.store(y, 0, load_part(x, 0, count))

    for count in range(1, 17):
        y = np.full(16, 7.0, np.float32)
        read(STORED[dtype], y, count)
        assert np.array_equal(y, np.where(np.arange(16) < count, NUMBERS[:16], 0.0))
