"""benchmarks/sync_overhead.py runs, and says what it measured."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "sync_overhead.py"


@pytest.mark.slow
def test_it_times_three_networks_on_two_ranks() -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--steps", "3", "--warmup", "1", "--batch", "2", "--size", "8", "--format", "json"]
    done = subprocess.run([*launch, SCRIPT, *options], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)  # one object: the other rank prints nothing
    assert found["settings"]["ranks"] == 2
    names = ["torch.nn.BatchNorm2d per rank", "normkit.BatchNorm2d per rank", "normkit.SyncBatchNorm"]
    assert [row["name"] for row in found["rows"]] == names
    assert found["rows"][0]["ratio"] == 1.0
    assert all(row["median_ms"] >= row["fastest_ms"] > 0 for row in found["rows"])


def test_without_torchrun_it_says_how_to_start() -> None:
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: start it with torchrun --nproc-per-node 2 benchmarks/sync_overhead.py\n"
