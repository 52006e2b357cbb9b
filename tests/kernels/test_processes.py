"""Threads and processes: forked, spawned, many threads at once, inference mode, and no OpenMP to be found."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numba import carray, cfunc, types

import normkit
from normkit.backends import Call, normalize
from normkit.backends.numba import Launch, threads
from normkit.backends.numba.compile import pointer
from normkit.backends.numba.record import ADDRESSES, CALL_STRUCT, FLOATS, RECORD, SHAPE_STRUCT, SIZES
from normkit.spec import Norm
from tests.cases import Case, draw
from tests.kernels.run import run

CASE = Case(Norm("batch"), (8, 16, 20, 20))  # large enough for several threads
DATA = draw(CASE, torch.float32)  # in the parent: torch's own parallel operations hang in a child that was forked


T = TypeVar("T")


def bits() -> list[bytes]:
    """The bits of a training step, the same wherever it runs."""
    return run(CASE, DATA).bits()


PRELUDE = """
import multiprocessing, os, signal, threading, time
import numpy as np
import torch
from normkit.backends.numba import kernel_cache
from normkit.backends.numba.threads import threading_layer
from tests.kernels import test_processes as here
torch.set_num_threads(2)
class Items(torch.utils.data.Dataset):
    def __len__(self): return 4
    def __getitem__(self, i): return here.bits() == before
def put(queue): queue.put(here.bits())
if __name__ == "__main__":
    before = here.bits()
    assert threading_layer() == "openmp"
"""

BODIES = {
    "fork": """
    child = os.fork()
    if not child:
        signal.alarm(60)  # a child that hangs must not outlive the test
        os._exit(0 if here.bits() == before and threading_layer() == "threads" else 3)
    assert os.waitpid(child, 0)[1] == 0
    assert here.bits() == before
""",
    "fork while another thread compiles": """
    find, begun = kernel_cache.find, threading.Event()
    def slow(*sort):
        if threading.current_thread() is threading.main_thread():
            return find(*sort)
        begun.set()
        time.sleep(1)
        return 0
    kernel_cache.find = slow
    compiling = threading.Thread(target=kernel_cache.address, args=("runs.slow",))
    compiling.start()
    begun.wait()
    child = os.fork()
    if not child:
        signal.alarm(60)
        address = kernel_cache.address("runs.forward", np.float32, np.float32, False, True, True)
        os._exit(0 if address else 3)
    assert os.waitpid(child, 0)[1] == 0
    compiling.join()
""",
    "multiprocessing": """
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.apply(here.bits) == before
""",
    "data loader": """
    loader = torch.utils.data.DataLoader(Items(), num_workers=2, multiprocessing_context="fork")
    assert all(bool(same) for same in loader)
""",
    "spawn": """
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=put, args=(queue,))
    process.start()
    assert queue.get() == before
    process.join()
    assert process.exitcode == 0
""",
}
SLOW = {"spawn", "multiprocessing"}  # each imports torch anew


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the platform cannot fork")
@pytest.mark.parametrize(
    "body", [pytest.param(body, marks=pytest.mark.slow if body in SLOW else ()) for body in BODIES]
)
def test_a_process_made_by(body: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(PRELUDE + BODIES[body])
    # Numba's own layers of threads, of which this one aborts when two threads use it, are not used at all
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


def in_threads(number: int, function: Callable[[], T]) -> list[T]:
    """What a function gives in threads that start at once."""
    found: list[T] = []
    barrier = threading.Barrier(number)

    def call() -> None:
        barrier.wait()
        found.append(function())

    started = [threading.Thread(target=call) for _ in range(number)]
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return found


def test_both_layers_give_the_same_bits(kind: str) -> None:
    assert threads.threading_layer() == kind
    num_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = bits()
        torch.set_num_threads(3)
        assert bits() == alone
    finally:
        torch.set_num_threads(num_threads)


def test_eight_threads_at_once(kind: str) -> None:
    expected = bits()
    assert in_threads(8, lambda: all(bits() == expected for _ in range(5))) == [True] * 8


def test_inference_mode() -> None:
    expected = run(CASE, DATA).y
    with torch.inference_mode(), normkit.use_backend("numba"):
        y = normalize(Call(DATA.x, CASE.norm, DATA.weight, DATA.bias, DATA.eps))
        assert y.is_inference()
        assert torch.equal(y, expected)


@cfunc(types.void(types.voidptr, types.int64, types.int64, types.int64))
def count_parts(data: Any, part: int, parts: int, phase: int) -> None:
    """A kernel that leaves in y[phase, part] of how many parts it was one, and fails where a phase is not over."""
    seen = carray(pointer(carray(data, 1, RECORD)[0].y, np.int64), (5, 8))
    if phase == 3:
        for other in range(parts):
            seen[phase, part] += seen[1, other] - parts
    seen[phase, part] += parts


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_each_part_of_each_phase_runs_once(num_threads: int, kind: str) -> None:
    seen = np.zeros((5, 8), np.int64)
    values = {"function": count_parts.address, "phases": 0b11010, "y": seen.ctypes.data}
    record = CALL_STRUCT.pack(*(values.get(name, 0) for name in ADDRESSES), *(0.0 for _ in FLOATS))
    threads.run_kernel(record + bytes(SHAPE_STRUCT.size), num_threads)
    each = [num_threads] * num_threads + [0] * (8 - num_threads)
    assert seen.tolist() == [[0] * 8, each, [0] * 8, each, each]


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_torch_says_how_many_threads(num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(record: bytes, count: int) -> None:
        asked.append(count)
        threads.run_kernel(record, count)

    monkeypatch.setattr(sys.modules[Launch.__module__], "run_kernel", spy)
    before = torch.get_num_threads()
    torch.set_num_threads(num_threads)
    try:
        bits()
    finally:
        torch.set_num_threads(before)
    # forward, backward and, where others would have to be waited for, its few partial gradients
    assert asked == [num_threads, num_threads, 1][: 2 if num_threads == 1 else 3]


def test_many_partial_gradients_are_summed_by_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def spy(record: bytes, count: int) -> None:
        asked.append(count)
        threads.run_kernel(record, count)

    monkeypatch.setattr(sys.modules[Launch.__module__], "run_kernel", spy)
    case = Case(Norm("layer", normalized_shape=(600,)), (256, 600))
    data = draw(case, torch.float32)
    found = []
    for count in (3, 1):
        torch.set_num_threads(count)
        found.append(run(case, data).bits())
    assert asked == [3, 3, 1, 1]
    assert found[0] == found[1]


def test_parts_are_done_in_turn_where_the_interpreter_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bits()
    monkeypatch.setattr(threads, "_layer", lambda: threads._with_threads)
    monkeypatch.setattr(threads, "_team", lambda: pytest.fail("a thread that has ended is waited for"))
    monkeypatch.setattr(sys, "is_finalizing", lambda: True)
    torch.set_num_threads(3)
    assert bits() == expected


def test_a_small_input_wakes_no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_layer", lambda: pytest.fail("threads were woken"))
    run(Case(Norm("batch"), (70, 6)), draw(Case(Norm("batch"), (70, 6)), torch.float32))


def test_what_is_packed_is_a_record() -> None:
    names = [*ADDRESSES, *FLOATS, *SIZES]
    packed = CALL_STRUCT.pack(*range(len(ADDRESSES)), *map(float, range(len(FLOATS)))) + SHAPE_STRUCT.pack(
        *range(len(SIZES))
    )
    (record,) = np.frombuffer(packed, RECORD)
    assert RECORD.names == tuple(names)
    assert record.tolist() == (*range(len(ADDRESSES)), *range(len(FLOATS)), *range(len(SIZES)))
