"""No kernel reads or writes beyond what it is given: see guard_pages.py. Each run is a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="mprotect is what guards the pages")
SHARDS = 8


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    command = [sys.executable, "-m", "tests.kernels.guard_pages", *map(str, arguments)]
    folder = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)


def assert_all_ran(found: "subprocess.CompletedProcess[str]") -> None:
    last = found.stdout.strip().rpartition("\n")[2]
    assert found.returncode == 0, f"{last}\n{found.stderr[-3000:]}"
    assert last


def test_a_sample_stays_within_its_memory() -> None:
    assert_all_ran(run(0, 97))


def test_what_reads_a_byte_too_far_is_caught() -> None:
    found = run("short")
    assert found.returncode in (-signal.SIGSEGV, -signal.SIGBUS)
    assert "batch-9x5 torch.float64" in found.stdout  # the first


@pytest.mark.slow
@pytest.mark.parametrize("shard", range(SHARDS))
def test_all_stay_within_their_memory(shard: int) -> None:
    assert_all_ran(run(shard, SHARDS))
