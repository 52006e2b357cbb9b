"""Large results ask for huge pages; small ones do not, and a system without them is no obstacle."""

import mmap
from pathlib import Path

import pytest
import torch

import normkit
from normkit.backends import huge_pages


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int]]:
    """What the system is asked for."""
    calls: list[tuple[int, int, int]] = []

    def advise(begin: int, size: int, advice: int) -> int:
        calls.append((begin, size, advice))
        return -1

    monkeypatch.setattr(huge_pages, "_advise", lambda: advise)
    return calls


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the system has no huge pages")
def test_whole_huge_pages_within_a_large_result_are_asked_for(asked: list[tuple[int, int, int]]) -> None:
    x = torch.empty(huge_pages.LARGE // 4 + 5)
    y = huge_pages.empty_like(x)
    ((begin, size, advice),) = asked
    assert advice == mmap.MADV_HUGEPAGE
    assert begin % huge_pages.HUGE == size % huge_pages.HUGE == 0
    assert y.data_ptr() <= begin < y.data_ptr() + huge_pages.HUGE
    assert y.data_ptr() + y.nbytes - huge_pages.HUGE < begin + size <= y.data_ptr() + y.nbytes


def test_small_results_ask_for_nothing(asked: list[tuple[int, int, int]]) -> None:
    huge_pages.empty_like(torch.empty(huge_pages.LARGE // 4 - 1))
    assert asked == []


@pytest.mark.skipif(not hasattr(mmap, "MADV_HUGEPAGE"), reason="the system has no huge pages")
def test_results_and_gradients_of_the_kernels_ask(asked: list[tuple[int, int, int]]) -> None:
    x = torch.randn(64, 64, 32, 32, requires_grad=True)
    y = normkit.BatchNorm2d(64)(x)
    assert len(asked) == 1
    y.backward(torch.ones_like(y))
    assert len(asked) == 2


def test_without_such_a_call_all_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huge_pages, "_advise", lambda: None)
    x = torch.empty(huge_pages.LARGE // 4)
    assert huge_pages.empty_like(x).shape == x.shape


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="the system has no huge pages")
def test_the_system_takes_the_advice() -> None:
    advise = huge_pages._advise()
    assert advise is not None
    with mmap.mmap(-1, 3 * huge_pages.HUGE) as memory:
        address = torch.frombuffer(memory, dtype=torch.uint8).data_ptr()
        begin = -(-address // huge_pages.HUGE) * huge_pages.HUGE
        assert advise(begin, huge_pages.HUGE, mmap.MADV_HUGEPAGE) == 0
