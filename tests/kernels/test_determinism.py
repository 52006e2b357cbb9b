"""The same input gives the same bits, whatever the number of threads and however the work is cut."""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numba import njit

from normkit.backends.numba import Launch
from normkit.backends.numba.columns.backward import write_weighted_rows
from normkit.spec import Norm
from normkit.statistics import Running
from tests.cases import CASES, Case, draw, layouts
from tests.kernels.run import run

SHAPES = [(70, 6), (3, 6, 33, 7), (130, 64, 3, 3), (3, 4100, 2)]
PAIRS = [(case, last) for case in dict.fromkeys(CASES) if case.shape in SHAPES for last in layouts(case.shape)]
PAIRS += [(Case(Norm("group", num_groups=5), (2000, 20)), False), (Case(Norm("batch"), (900, 5000)), False)]
every_pair = pytest.mark.parametrize(("case", "last"), PAIRS, ids=str)


@pytest.fixture(autouse=True)
def _small_inputs_get_threads(tune: Callable[..., None]) -> None:
    tune(single_thread_elements=0)


@every_pair
def test_bits_do_not_depend_on_the_number_of_threads(case: Case, last: bool) -> None:
    data, found = draw(case, torch.float32, last), []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        found.append(run(case, data).bits())
    assert [bits == found[0] for bits in found] == [True] * 4


@pytest.mark.parametrize("last", [False, True])
def test_bits_of_an_evaluation_do_not_either(last: bool) -> None:
    case = Case(Norm("batch"), (3, 6, 33, 7))
    data, found = draw(case, torch.float32, last), []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        found.append(run(case, data, running=Running(torch.randn(6) * 0 + 0.3, torch.full((6,), 2.0), 0.1)).bits())
    assert [bits == found[0] for bits in found] == [True] * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@every_pair
def test_streamed_outputs_have_the_same_bits(
    case: Case, last: bool, dtype: torch.dtype, tune: Callable[..., None]
) -> None:
    data = draw(case, dtype, last)
    cached = run(case, data).bits()
    tune(single_thread_elements=0, stream_bytes=0)
    assert run(case, data).bits() == cached


@every_pair
def test_bits_do_not_depend_on_what_the_caches_hold(
    case: Case, last: bool, monkeypatch: pytest.MonkeyPatch, tune: Callable[..., None]
) -> None:
    data, found = draw(case, torch.float32, last), []
    for held in (1, 1 << 14, 1 << 30):
        monkeypatch.setattr(sys.modules[Launch.__module__], "interleave_bytes", lambda held=held: held)
        tune(single_thread_elements=0)
        found.append(run(case, data).bits())
    assert [bits == found[0] for bits in found] == [True] * 3


@njit
def write(*operands: Any) -> None:  # compiled code alone can call a function of a kernel
    write_weighted_rows(*operands)


@pytest.mark.parametrize("size", [7, 9, 31, 100, 300])
def test_bits_do_not_depend_on_how_close_arrays_lie(size: int) -> None:
    rng = np.random.default_rng(0)
    memory = np.zeros(4096, np.float32)
    x, dy = rng.normal(size=(2, size)).astype(np.float32)
    tables, weight = rng.normal(size=6 * size).astype(np.float32), np.ones(1, np.float32)
    found = set()
    for gap in (0, 1, 4, 8, 16, 1000):  # elements between what is read and what is written
        memory[:size], memory[size + gap : size + gap + size] = x, 0
        dx = memory[size + gap : 2 * size + gap]
        for streams in (False, True):
            sums, row = np.zeros((2, 1), np.float32), (0, size, 1)  # begins at, stride, rows
            write((memory[:size], dy), dx, *row, tables, weight, sums[0], sums[1], streams, np.float32(0))
            found.add(sums.tobytes())
    assert len(found) == 1
