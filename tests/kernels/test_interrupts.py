"""An interrupt, such as Ctrl-C, while kernels run: no thread works on for a call that has ended."""

import os
import signal
import subprocess
import sys
import threading
import time
from ctypes import CDLL, c_int, c_uint
from types import FrameType
from typing import Any

import numpy as np
import pytest
from numba import carray, cfunc, types

from normkit.backends.numba import threads
from normkit.backends.numba.compile import pointer
from normkit.backends.numba.record import ADDRESSES, CALL_STRUCT, FLOATS, RECORD, SHAPE_STRUCT

if not hasattr(signal, "pthread_kill"):
    pytest.skip("the platform has no signals to send", allow_module_level=True)

usleep = CDLL(None).usleep
usleep.argtypes, usleep.restype = [c_uint], c_int

PARTS = 3
PHASES = 0b1010
NAP = 200  # microseconds that each part takes


@cfunc(types.void(types.voidptr, types.int64, types.int64, types.int64))
def nap(data: Any, part: int, parts: int, phase: int) -> None:
    """A kernel that counts in y[part] how often it has begun and ended; the calling thread is done first."""
    seen = carray(pointer(carray(data, 1, RECORD)[0].y, np.int64), (PARTS, 2))
    seen[part, 0] += 1
    if part:
        usleep(NAP)
    seen[part, 1] += 1


class Interrupt(BaseException):
    """What stands for KeyboardInterrupt, which would end the tests."""


def interrupt(signal_number: int, frame: FrameType | None) -> None:
    """Interrupt a call of a kernel, and nothing else."""
    while frame is not None:
        if frame.f_code.co_filename == threads.__file__:
            raise Interrupt
        frame = frame.f_back


def attack(interrupts: int) -> int:
    """Interrupt kernels at any moment, several times a call; return after how many a part was not done."""
    seen = np.zeros((PARTS, 2), np.int64)
    values = {"function": nap.address, "phases": PHASES, "y": seen.ctypes.data}
    record = CALL_STRUCT.pack(*(values.get(name, 0) for name in ADDRESSES), *(0.0 for _ in FLOATS))
    record += bytes(SHAPE_STRUCT.size)
    threads.run_kernel(record, PARTS)
    found = unfinished = 0
    over, target = threading.Event(), threading.get_ident()
    delays = np.random.default_rng(0).uniform(0, 4 * NAP, 1 << 12) / 1e6

    def shoot() -> None:
        for delay in np.tile(delays, 1 << 10):
            if over.is_set():
                return
            time.sleep(delay)
            signal.pthread_kill(target, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    shooter = threading.Thread(target=shoot)
    shooter.start()
    try:
        while found < interrupts:
            try:
                threads.run_kernel(record, PARTS)
            except Interrupt:
                found += 1
                at_once = seen.copy()
                time.sleep(2 * NAP / 1e6)  # a part that has not begun yet begins
                unfinished += not (seen == at_once).all() or (seen[:, 0] != seen[:, 1]).any()
    finally:
        over.set()
        shooter.join()
        signal.signal(signal.SIGUSR1, before)
    seen[:] = 0
    threads.run_kernel(record, PARTS)
    assert (seen == 2).all()  # two phases
    return unfinished


def test_interrupts_leave_no_part_undone(kind: str) -> None:
    assert attack(30) == 0


SCRIPT = """
import os, signal, sys
import torch
from normkit.backends.numba import threads
from tests.kernels import test_interrupts as here
from tests.kernels.test_processes import bits
torch.set_num_threads(here.PARTS)
expected = bits()
name, number = sys.argv[1], int(sys.argv[2])
if name == "fork":
    child = os.fork()
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    signal.alarm(240)  # a child that hangs must not outlive the test
elif name == "threads":
    threads._parallel = lambda: None
threads._layer.cache_clear()
assert threads.threading_layer() == ("openmp" if name == "openmp" else "threads")
unfinished = here.attack(number)
for _ in range(20):
    assert bits() == expected
os._exit(1 if unfinished else 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openmp", "threads", "fork"])
def test_a_thousand_interrupts(name: str) -> None:
    if name == "openmp" and threads._parallel() is None:
        pytest.skip("no OpenMP runtime here")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", SCRIPT, name, "1000"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
