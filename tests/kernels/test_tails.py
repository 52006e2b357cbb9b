"""The tail of a run in half precision is loaded and stored right, with instructions that mask its elements or not."""

from typing import Any

import numpy as np
import pytest
import torch
from numba import njit
from numpy.typing import NDArray

from normkit.backends import processor
from normkit.backends.numba import memory
from normkit.backends.numba.compile import pointer
from normkit.backends.numba.memory import load, load_tail, store, store_tail
from normkit.backends.numba.simd import PAIRS, blend, mask_tail

ELEMENTS = np.arange(1, 35, dtype=np.float32)
BFLOAT16 = (ELEMENTS.view(np.uint32) >> 16).astype(np.uint16)
FLOAT16 = ELEMENTS.astype(np.float16).view(np.int16)
# the elements as they are stored, and the stored dtype of kernels
STORED: dict[str, tuple[NDArray[Any], Any]] = {
    "bfloat16": (BFLOAT16, np.uint16),
    "bfloat16 in pairs": (BFLOAT16, PAIRS),
    "float16": (FLOAT16, np.int16),
}
every_dtype = pytest.mark.parametrize(("elements", "stored"), STORED.values(), ids=STORED)


@pytest.fixture(params=[False, True], ids=["as here", "without masks"], autouse=True)
def masks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(memory, "_lacks_masks", lambda _stored: True)


@every_dtype
def test_a_tail_is_copied_and_nothing_else_written(elements: NDArray[Any], stored: Any) -> None:
    @njit
    def copy(x: int, y: int, count: int) -> None:
        store_tail(pointer(y, stored), 1, load_tail(pointer(x, stored), 1, count), count)

    for count in range(1, 17):
        y = np.full_like(elements, 7)
        copy(elements.ctypes.data, y.ctypes.data, count)
        assert np.array_equal(y[1 : 1 + count], elements[1 : 1 + count])
        assert np.all(np.delete(y, np.s_[1 : 1 + count]) == 7)


@every_dtype
def test_lanes_behind_a_tail_are_zero(elements: NDArray[Any], stored: Any) -> None:
    @njit
    def read(x: int, y: int, count: int) -> None:
        store(pointer(y, np.float32), 0, load_tail(pointer(x, stored), 0, count))

    offsets = np.array([*range(0, 16, 2), *range(1, 16, 2)]) if stored == PAIRS else np.arange(16)  # of each lane
    for count in range(1, 17):
        y = np.full(16, 7.0, np.float32)
        read(elements.ctypes.data, y.ctypes.data, count)
        assert np.array_equal(y, np.where(offsets < count, ELEMENTS[offsets], 0.0))


@every_dtype
def test_the_first_elements_are_those_in_memory(elements: NDArray[Any], stored: Any) -> None:
    @njit
    def cut(x: int, y: int, count: int) -> None:
        source, result = pointer(x, stored), pointer(y, stored)
        begin, end = load(source, 0), load(source, 16)
        store(result, 0, mask_tail(source, begin, count))
        store(result, 16, blend(source, begin, end, count))

    for count in range(17):
        y = np.zeros_like(elements)
        cut(elements.ctypes.data, y.ctypes.data, count)
        assert np.array_equal(y[:16], np.where(np.arange(16) < count, elements[:16], 0))
        assert np.array_equal(y[16:32], np.where(np.arange(16) < count, elements[:16], elements[16:32]))


def test_elements_are_rounded_as_torch_rounds_them() -> None:
    """In every order: halfway cases, what overflows, what is subnormal, zeros with signs, infinities, and NaN."""
    bits = np.arange(1 << 16, dtype=np.uint32) << 16
    ends = [0x0000, 0x0001, 0x7FFF, 0x8000, 0x8001, 0xFFFF]
    values = np.concatenate([bits | end for end in ends]).view(np.float32)
    values = values[~np.isnan(values)]
    values = np.concatenate([values, np.full(-values.size % 16, np.nan, np.float32)])
    exact = torch.from_numpy(values).bfloat16()

    @njit
    def narrow(x: int, pairs: int, plain: int, size: int) -> None:
        for i in range(0, size, 16):
            value = load(pointer(x, np.float32), i)
            store(pointer(plain, np.uint16), i, value)
            store(pointer(pairs, PAIRS), i, value)

    plain, pairs = torch.empty_like(exact), torch.empty_like(exact)
    narrow(values.ctypes.data, pairs.data_ptr(), plain.data_ptr(), values.size)
    order = torch.arange(values.size).view(-1, 2, 8).transpose(1, 2).flatten()  # lane i + 8 is written behind lane i
    if "+avx512bf16" not in processor.features():  # that instruction makes zeros of what is subnormal
        assert torch.equal(plain.nan_to_num(7.0), exact.nan_to_num(7.0))
    assert torch.equal(pairs.nan_to_num(7.0), exact[order].nan_to_num(7.0))
