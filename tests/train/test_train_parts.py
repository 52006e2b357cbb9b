"""Memory estimates, histograms, pictures and progress, each on its own."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from normkit import train
from normkit.errors import UserError
from normkit.train import (
    EpochMetrics,
    NormResult,
    StepDifference,
    TrainConfig,
    lenet,
    loop,
    memory,
    progress,
    report,
    step,
    style,
)
from normkit.train.activations import BINS, histograms, watch
from normkit.train.drift_picture import drift_picture


def test_a_batch_beyond_the_memory_is_refused_with_one_that_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: 10 * 2**20)
    each = memory.bytes_per_image(TrainConfig())
    fitting = 10 * 2**20 // each
    memory.check_batch(TrainConfig(batch_size=fitting), 60000)
    with pytest.raises(UserError, match=rf"not enough memory.*10\.0 MiB are available: use `batch_size={fitting}` or"):
        memory.check_batch(TrainConfig(batch_size=fitting + 1), 60000)


def test_a_huge_batch_is_refused_on_any_machine() -> None:
    with pytest.raises(UserError, match="not enough memory: a batch of 1,000,000,000,000 images needs about"):
        memory.check_batch(TrainConfig(batch_size=10**12), 60000)


def test_a_batch_needs_at_most_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda: None)
    memory.check_batch(TrainConfig(batch_size=100), 100)
    with pytest.raises(UserError, match="more than the 100 training images"):
        memory.check_batch(TrainConfig(batch_size=101), 100)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")]
)
def test_a_failed_allocation_is_explained(error: Exception) -> None:
    with pytest.raises(UserError, match="smaller `batch_size`"), memory.shortage_explained(4096):
        raise error
    with pytest.raises(RuntimeError, match="shapes"), memory.shortage_explained(4096):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(("norm", "sides"), [("batch", 8), ("instance", 6), ("none", 4)])
def test_watch_keeps_both_sides_of_each_norm(norm: str, sides: int) -> None:
    model, x = lenet(norm, "torch", seed=0), torch.rand(8, 1, 28, 28)
    with watch(model, active=True) as seen:
        model(x)
    assert len(seen) == sides
    assert torch.equal(seen["convolution 1", "before"], model.get_submodule("conv1")(x))
    if norm != "none":
        torch.testing.assert_close(seen["convolution 1", "after"], model[:2](x))
    seen.clear()
    model(x)
    assert not seen  # the hooks are gone
    with watch(model, active=False) as nothing:
        model(x)
    assert not nothing


def test_a_histogram_counts_what_is_there() -> None:
    values = torch.cat([torch.linspace(-1, 1, 6001), torch.tensor([torch.nan, torch.inf])])
    (record,) = histograms({("linear 1", "before"): values}, epoch=2, step=7)
    assert (record.place, record.side, record.epoch, record.step) == ("linear 1", "before", 2, 7)
    assert (record.low, record.high) == (-1.0, 1.0)
    assert sum(record.counts) == 6001
    assert len(record.counts) == BINS
    assert record.std == pytest.approx(np.linspace(-1, 1, 6001).std())


def test_odd_activations_have_histograms_too() -> None:
    (constant,) = histograms({("linear 1", "before"): torch.ones(5)}, epoch=1, step=1)
    assert sum(constant.counts) == 5
    assert histograms({("linear 1", "before"): torch.full((3,), torch.nan)}, epoch=1, step=1) == []


def metrics(norm: str, epoch: int, impl: str = "", **values: Any) -> EpochMetrics:
    fields = {"train_loss": 1 / epoch, "train_accuracy": 0.5, "test_loss": 1.1 / epoch, "test_accuracy": 0.4}
    return EpochMetrics(
        **{"norm": norm, "impl": impl, "epoch": epoch, **fields, "seconds": 1.0, "images_per_second": 9.0, **values}
    )


def test_curves_show_every_norm() -> None:
    results = [NormResult(norm, 1, [metrics(norm, 1), metrics(norm, 2)]) for norm in ("batch", "none")]
    both, one = report.curves(results, "title"), report.curves(results[:1], "title")
    assert both.startswith(b"\x89PNG")
    assert both != one


def test_pictures_can_be_drawn_of_a_diverged_training() -> None:
    result = NormResult("none", 1, [metrics("none", 1, train_loss=float("nan"), test_loss=float("inf"))])
    assert report.curves([result], "title").startswith(b"\x89PNG")
    assert report.activation_histograms(result, "#0072B2").startswith(b"\x89PNG")


def test_own_layers_have_colours_of_their_own() -> None:
    names = [("normkit", ""), ("torch", ""), ("Mine", "m.py:Mine"), ("Yours", "y.py:Yours")]
    several = [NormResult("batch", 1, impl=impl, target=target) for impl, target in names]
    colours = style.colours(several)
    assert len({*colours.values()}) == 4
    assert colours["batch-normkit"] == style.colours([NormResult("batch", 1)])["batch"]
    assert [style.title(result) for result in several[:2]] == ["batch norm, normkit", "batch norm, torch.nn"]


def difference(step: int, **values: Any) -> StepDifference:
    drift = dict.fromkeys(("drift_loss", "drift_gradient", "drift_running", "drift_weight"), 0.0)
    return StepDifference(norm="batch", impl="Mine", epoch=1, step=step, **{**drift, **values})


def test_drift_is_drawn_whatever_its_size() -> None:
    sizes = [0.0, 1e-7, 1e-2, float("inf"), float("nan")]
    rows = [difference(step, output=size, output_layer="norm1") for step, size in enumerate(sizes, 1)]
    result = NormResult("batch", 1, differences=rows, impl="Mine", target="m.py:Mine")
    whole = drift_picture([result], {"batch-Mine": "#D55E00"})
    within = drift_picture([replace(result, differences=rows[:2])], {"batch-Mine": "#D55E00"})
    assert whole.startswith(b"\x89PNG")
    assert whole != within


def test_csv_keeps_every_digit() -> None:
    text = report.to_csv([metrics("batch", 3)], EpochMetrics).decode()
    header, line = text.splitlines()
    assert header == "norm,epoch,train_loss,train_accuracy,test_loss,test_accuracy,seconds,images_per_second"
    assert line.split(",")[:3] == ["batch", "3", "0.3333333333333333"]


def test_csv_tells_several_implementations_apart() -> None:
    text = report.to_csv([metrics("none", 1), metrics("batch", 1, "Mine")], EpochMetrics).decode()
    header, none, mine = text.splitlines()
    assert header.startswith("norm,impl,epoch,train_loss")
    assert none.startswith("none,,1,")
    assert mine.startswith("batch,Mine,1,")


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_says_loss_accuracy_speed_and_time_left(small_data: Path, tmp_path: Path, terminal: bool) -> None:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=140)
    config = TrainConfig(data=str(small_data), epochs=2, batch_size=64, norms=["none"])
    shown = train.for_console(console)
    assert isinstance(shown, train.LiveProgress if terminal else train.LineProgress)
    train.run(config, tmp_path / "run", progress=shown)
    said = stream.getvalue()
    assert "none      epoch 2/2  loss " in said
    assert "train accuracy 0." in said
    assert "images/s" in said
    if terminal:
        assert "\x1b[" in said
        assert "left" in said
    else:
        assert [line.rsplit("  ", 1)[1] for line in said.splitlines()][-1] == "0 s left"
        assert "\x1b" not in said


class Clock:
    """Seconds that pass as a test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        for module in (loop, progress):
            monkeypatch.setattr(module, "perf_counter", lambda: self.now)


def test_speed_and_time_left_leave_out_the_first_step_which_compiles(
    small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    real, steps = step.forward_backward, iter([90.0, *[0.5] * 5])  # two epochs of 64, 64 and 65 images

    def slow_at_first(*arguments: Any) -> tuple[float, int]:
        clock.now += next(steps)
        return real(*arguments)

    monkeypatch.setattr(loop, "forward_backward", slow_at_first)
    config = TrainConfig(data=str(small_data), epochs=2, batch_size=64, norms=["none"])
    result = train.run(config, tmp_path / "run", progress=train.LineProgress(Console(file=stream, width=140)))
    first, second = result.norms[0].epochs
    assert first.images_per_second == 129 / 1.0
    assert first.seconds == pytest.approx(193 / 129)
    assert (second.images_per_second, second.seconds) == (193 / 1.5, 1.5)
    assert "2 s left" in stream.getvalue().splitlines()[0]  # three steps of half a second, rounded


def test_a_single_step_is_timed_as_it_is(small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, stream = Clock(monkeypatch), io.StringIO()
    real = step.forward_backward

    def slow(*arguments: Any) -> tuple[float, int]:
        clock.now += 2.0
        return real(*arguments)

    monkeypatch.setattr(loop, "forward_backward", slow)
    config = TrainConfig(data=str(small_data), epochs=2, batch_size=193, norms=["none"])
    result = train.run(config, tmp_path / "run", progress=train.LineProgress(Console(file=stream, width=140)))
    assert [row.seconds for row in result.norms[0].epochs] == [2.0, 2.0]
    assert "2 s left" in stream.getvalue().splitlines()[0]
