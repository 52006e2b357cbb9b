"""The check that runs on a GPU: all of it that can run on a CPU."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cuda_check.py"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPT))


def test_the_table_says_what_failed_and_what_cannot_run(script: dict[str, Any]) -> None:
    def wrong(_bench: Any) -> None:
        raise AssertionError("y is off")

    bench = script["Bench"](torch.device("cpu"), 60.0)
    bench.check("LayerNorm", script["layer_equals_torch"], script["ROWS"]["LayerNorm"], torch.float64, False)
    bench.check("wrong", wrong)
    bench.check("choose", script["torch_is_chosen"])
    bench.ends = 0.0
    bench.check("late", wrong)
    verdicts = [(outcome.name, outcome.verdict) for outcome in bench.outcomes]
    assert verdicts == [("LayerNorm", "ok"), ("wrong", "FAILED"), ("choose", "skipped"), ("late", "not run")]
    assert "AssertionError: y is off" in bench.table()
    assert bench.table().endswith("1 ok, 1 FAILED, 1 skipped, 1 not run")


def test_an_error_is_found(script: dict[str, Any]) -> None:
    """Of a layer that is not what it is compared with."""
    rows = script["ROWS"]
    wrong = script["Row"](rows["RMSNorm"].ours, rows["LayerNorm"].torchs, rows["LayerNorm"].shape)
    with pytest.raises(AssertionError):
        script["layer_equals_torch"](script["Bench"](torch.device("cpu"), 60.0), wrong, torch.float64, False)


def test_without_a_gpu_it_says_what_to_do() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    found = subprocess.run([sys.executable, str(SCRIPT)], capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "--device cpu runs what can run without one" in found.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_that_runs_on_a_cpu_passes() -> None:
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--seconds", "800"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "FAILED" not in found.stdout
