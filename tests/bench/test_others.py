"""Accuracy, saved memory, start, crossover, and the document of them all."""

import json
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from normkit import reference
from normkit.bench import accuracy, crossover, memory, start
from normkit.bench.cases import NormCase
from normkit.bench.contenders import OURS, TORCH, layer
from normkit.bench.document import Document
from normkit.bench.measure import Effort
from normkit.bench.progress import Progress
from normkit.bench.runner import Times
from normkit.bench.section import Section, duration
from normkit.bench.table import ROW_BY_NAME


@pytest.mark.parametrize("case", accuracy.CASES, ids=lambda case: case.name)
def test_spec_is_what_the_layer_computes(case: NormCase) -> None:
    x = torch.randn(2, *case.shape[1:])
    expected = torch.from_numpy(reference.normalize(x.numpy(), accuracy.spec(case)).y)
    torchs = layer(case, TORCH).double().train()
    torch.testing.assert_close(torchs(x.double()), expected)


def test_one_pass_is_right_for_small_means_and_wrong_for_large_ones() -> None:
    case = NormCase("BatchNorm2d", (4, 3, 8, 8), affine=False)
    near, far = accuracy.errors(case, 1.0), accuracy.errors(case, 1e4)
    assert near[accuracy.ONE_PASS] < 10
    assert far[accuracy.ONE_PASS] > 1e5
    assert near[OURS] < 10


def test_accuracy_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accuracy, "EXPONENTS", range(2))
    monkeypatch.setattr(accuracy, "SEEDS", 1)
    found = accuracy.Accuracy()
    found.run(Progress())
    (section,) = found.sections()
    assert section.columns == ("case", "", "1e0", "1e1")
    assert len(section.rows) == 3 * len(accuracy.CASES)
    assert "E[x²] - E[x]²" in section.notes[0]
    assert section.notes[1].endswith("(target 4: reached).")
    points = json.loads(json.dumps(found.to_json()))["accuracy"]
    assert set(points[0]["errors"]) == {"ours", "torch", "one pass"}
    found.draw(tmp_path / "accuracy.png")
    assert (tmp_path / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_accuracy_report_of_an_interrupted_run() -> None:
    section = accuracy.Accuracy([accuracy.Point(accuracy.CASES[0].name, 1.0, {"ours": 5.0, "torch": 1.0})]).sections()[
        0
    ]
    assert section.rows[0][2:4] == ("5", "")
    assert section.notes[1].endswith("missed).")


def test_saved_memory_counts_blocks_once_and_no_parameters() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(10))

        def forward(self, x: Tensor) -> Tensor:
            return (x * self.weight) * x.view(10)

    # x and x * weight are saved, each once; weight is not counted
    assert memory.count_saved(Twice(), torch.ones(10, requires_grad=True)) == 2 * 40


def test_memory_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "CASES", (NormCase("BatchNorm2d", (4, 8, 32, 32)), NormCase("LayerNorm", (8, 64))))
    found = memory.Memory()
    found.run(Progress())
    assert [row.input for row in found.rows] == [131_072, 2_048]
    assert all(row.ours >= row.input and row.torch >= row.input for row in found.rows)
    assert found.sections()[0].rows[1][-1] == "as much"
    found.rows.append(memory.Saved("worse", 10, 21, 20))
    assert found.sections()[0].rows[2] == ("worse", "10", "21", "20", "2.100 / 2.000", "more")
    assert found.sections()[0].notes[0].startswith("We keep more than torch.nn in 1 of 3 cases.")
    assert json.loads(json.dumps(found.to_json()))["memory"][2]["ours"] == 21


def test_start_report() -> None:
    found = start.Start({"import torch": [1.0], "import normkit": [0.1, 0.2, 0.3], "cold": [12.0], "warm": []})
    (section,) = found.sections()
    assert section.rows[1][1:] == ("200 ms", "100 ms … 300 ms", "0.3 s", "reached")
    assert section.rows[2][1:] == ("12 s", "12 s … 12 s", "10 s", "missed")
    assert len(section.rows) == 3
    assert found.to_json()["start"]["cold"]["target"] == 10.0


@pytest.mark.slow
def test_start_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start, "COLD_STARTS", 1)
    monkeypatch.setattr(start, "WARM_STARTS", 1)
    found = start.Start()
    found.run(Progress())
    assert {name: len(samples) for name, samples in found.samples.items()} == dict.fromkeys(start.NAMES, 1)


@pytest.mark.parametrize(
    ("ratios", "expected"),
    [((0.5, 0.9, 1.1, 2.0), 30), ((1.0, 1.1, 1.2, 1.3), 10), ((2.0, 2.0, 0.9, 1.1), 40), ((2.0, 2.0, 2.0, 0.9), None)],
)
def test_crossover(ratios: tuple[float, ...], expected: int | None) -> None:
    assert crossover.first_faster((10, 20, 30, 40), ratios) == expected


def test_crossover_families_have_the_size_they_say() -> None:
    for family in crossover.FAMILIES:
        assert [prod(family(size).shape) for size in crossover.SIZES] == list(crossover.SIZES)


def test_crossover_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossover, "SIZES", (256, 512))
    monkeypatch.setattr(crossover, "FAMILIES", crossover.FAMILIES[:1])
    monkeypatch.setattr(crossover, "PASSES", ("evaluation",))
    monkeypatch.setattr(crossover, "QUICK", Effort(1, 1e-5, 1.0))
    found = crossover.Crossover()
    found.run(Progress())
    (section,) = found.sections()
    assert section.columns == ("norm", "pass", "256", "512", "faster from", "kernel from")
    assert [len(row) for row in section.rows] == [6]
    assert set(found.to_json()["crossover"][0]["ratios"]) == {256, 512}
    assert np.isfinite(list(found.lines[0].ratios.values())).all()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (2.5, "2.5 s"),
        (0.0123, "12.3 ms"),
        (0.0009999, "1000 µs"),
        (1e-6, "1 µs"),
        (2.5e-7, "0.25 µs"),
        (1234.0, "1234 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_markdown() -> None:
    section = Section("Title", ("what", "number"), (("a", "1"), ("b", "2")), ("A note.",))
    assert section.to_markdown() == ("## Title\n\n| what | number |\n|---|---:|\n| a | 1 |\n| b | 2 |\n\nA note.\n")


def test_document(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(accuracy, "EXPONENTS", range(1))
    monkeypatch.setattr(memory, "CASES", (NormCase("LayerNorm", (8, 64)),))
    for kind in (start.Start, crossover.Crossover):
        monkeypatch.setattr(kind, "run", lambda self, progress: None)
    times = Times.of([ROW_BY_NAME["LayerNorm (1,768) float32 forward"]], regime="default", quick=True)
    document = Document(times)
    document.run(Progress())
    assert {"rows", "memory"} < set(document.to_json())
    document.write(tmp_path / "benchmarks.md")
    text = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    titles = [line for line in text.splitlines() if line.startswith("#")]
    assert titles == [
        "# Benchmarks",
        "## Machine",
        "## Two allocators",
        "## Times with the C library's allocator as it is",
        "## Error by mean/std",
        "## Memory kept for backward",
        "## Start",
        "## Where kernels overtake torch's own operations",
    ]
    for name in ("bench.png", "accuracy.png"):
        assert f"](images/{name})" in text
        assert (tmp_path / "images" / name).stat().st_size > 1000
