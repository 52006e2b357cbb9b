"""The benchmark of synchronized batch norm: its ranks, its ratios, and what it says."""

import json

import pytest
import torch
from torch import nn

import normkit
from normkit.bench.progress import Progress
from normkit.bench.sync import SyncOverhead
from normkit.bench.sync_rank import Settings, networks

NAMES = ["torch.nn.BatchNorm2d per rank", "normkit.BatchNorm2d per rank", "normkit.SyncBatchNorm"]
SECONDS = {NAMES[0]: [0.2, 0.1, 0.9], NAMES[1]: [0.1, 0.1, 0.1], NAMES[2]: [0.4, 0.3, 0.5]}


@pytest.mark.slow
def test_it_times_three_networks_on_two_ranks() -> None:
    found = SyncOverhead(Settings(ranks=2, steps=3, batch=2, size=8))
    found.run(Progress())
    result = json.loads(json.dumps(found.to_json()))
    assert result["settings"]["ranks"] == 2
    assert result["environment"]["threads"] == "1"
    rows = result["sync"]
    assert [row["name"] for row in rows] == NAMES
    assert all(len(seconds) == 3 for seconds in found.seconds.values())
    assert rows[0]["ratio"] == 1.0
    assert all(row["median_ms"] >= row["fastest_ms"] > 0 for row in rows)


@pytest.mark.slow
def test_ranks_that_fail_are_an_error() -> None:
    found = SyncOverhead(Settings(ranks=2, steps=1, batch=-1))
    with pytest.raises(RuntimeError, match="ended with status 1"):
        found.run(Progress())


def test_ratios_are_those_of_medians_to_the_first() -> None:
    rows = SyncOverhead(seconds=SECONDS).rows()
    assert [row["name"] for row in rows] == NAMES
    assert [row["ratio"] for row in rows] == [1.0, 0.5, 2.0]
    assert [row["fastest_ms"] for row in rows] == [100.0, 100.0, 300.0]


def test_report_names_the_settings() -> None:
    (section,) = SyncOverhead(Settings(ranks=3, threads=2, batch=4, size=8), SECONDS).sections()
    assert section.rows[2] == (NAMES[2], "400.0 ms", "300.0 ms", "2.00")
    assert "3 gloo ranks" in section.notes[0]
    assert "2 threads and batches of 4 × 3 × 8 × 8" in section.notes[0]


def test_report_of_an_interrupted_run_has_no_rows() -> None:
    found = SyncOverhead()
    assert found.sections()[0].rows == ()
    assert found.to_json()["sync"] == []


def test_networks_differ_in_their_batch_norms_alone() -> None:
    found = networks()
    assert list(found) == NAMES
    first, *others = found.values()
    for other in others:
        assert all(map(torch.equal, first.state_dict().values(), other.state_dict().values()))
    kinds = []
    for model in found.values():
        kinds.append({type(module) for module in model.modules() if "Norm" in type(module).__name__})
    assert kinds == [{nn.BatchNorm2d}, {normkit.BatchNorm2d}, {normkit.SyncBatchNorm}]
