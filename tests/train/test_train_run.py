"""Whole runs: what they write, and that a resumed one ends where an uninterrupted one does."""

import csv
import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from normkit import train
from normkit.errors import UserError
from normkit.train import EpochMetrics, NormResult, Progress, RunResult, Step, TrainConfig, report
from tests.train.stop import Stop

TIMES = {"seconds", "images_per_second"}


def small_config(data: Path, **options: Any) -> TrainConfig:
    return TrainConfig(**{"data": str(data), "epochs": 2, "batch_size": 64, "norms": ["batch", "none"], **options})


def numbers(result: RunResult) -> list[dict[str, Any]]:
    """All that must not depend on how often a run was interrupted."""
    rows = []
    for norm in result.norms:
        record = asdict(norm)
        record["epochs"] = [{k: v for k, v in row.items() if k not in TIMES} for row in record["epochs"]]
        rows.append(record)
    return rows


def weights(folder: Path, norm: str) -> dict[str, torch.Tensor]:
    state = torch.load(folder / f"checkpoint-{norm}.pt", weights_only=True)["model"]
    assert isinstance(state, dict)
    return state


class Log(Progress):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def begin(self, steps: int, done: int) -> None:
        self.calls.append(f"begin {steps} {done}")

    def step(self, step: Step) -> None:
        self.calls.append("step")

    def epoch(self, metrics: EpochMetrics, epochs: int) -> None:
        self.calls.append(f"{metrics.norm} {metrics.epoch}/{epochs}")

    def end(self) -> None:
        self.calls.append("end")


@pytest.mark.parametrize("impl", ["normkit", "torch"])
def test_a_run_writes_everything(small_data: Path, tmp_path: Path, impl: str) -> None:
    out, log = tmp_path / "run", Log()
    result = train.run(small_config(small_data, impls=[impl]), out, progress=log)
    expected = {"config.json", "metrics.csv", "metrics.json", "curves.png"}
    expected |= {f"checkpoint-{norm}.pt" for norm in ("batch", "none")}
    expected |= {f"activations-{norm}.png" for norm in ("batch", "none")}
    assert {path.name for path in out.iterdir()} == expected == set(result.files)
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in expected if name.endswith(".png"))

    with (out / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["norm"], row["epoch"]) for row in rows] == [
        ("batch", "1"),
        ("batch", "2"),
        ("none", "1"),
        ("none", "2"),
    ]
    assert float(rows[1]["test_accuracy"]) == result.norms[0].epochs[1].test_accuracy
    assert json.loads((out / "metrics.json").read_text()) == result.to_json()
    # 193 images: batches of 64, 64 and 65, as the lone last one joins
    steps = ["step"] * 3
    epochs = [f"{norm} {epoch}/2" for norm in ("batch", "none") for epoch in (1, 2)]
    assert log.calls == ["begin 12 0", *[call for epoch in epochs for call in (*steps, epoch)], "end"]


def test_training_learns(tmp_path: Path) -> None:
    result = train.run(TrainConfig(epochs=3), tmp_path / "run")
    first, *_, last = result.norms[0].epochs
    assert last.train_loss < 0.6 * first.train_loss
    assert last.test_accuracy > 0.8


def test_metrics_describe_the_checkpoint(small_data: Path, tmp_path: Path) -> None:
    config = small_config(small_data, norms=["batch"])
    result = train.run(config, tmp_path / "run")
    model = train.lenet("batch", "torch", seed=9)
    model.load_state_dict(weights(tmp_path / "run", "batch"))
    images = train.load_dataset(config.data)
    with torch.no_grad():
        outputs = model.eval()(images.test_images.float() / 255)
    loss = torch.nn.functional.cross_entropy(outputs, images.test_labels)
    accuracy = (outputs.argmax(1) == images.test_labels).double().mean()
    assert result.norms[0].epochs[-1].test_loss == pytest.approx(float(loss), rel=1e-4)
    assert result.norms[0].epochs[-1].test_accuracy == float(accuracy)


def test_the_same_seed_gives_the_same_bits_and_another_does_not(small_data: Path, tmp_path: Path) -> None:
    runs = [
        train.run(small_config(small_data, epochs=1, seed=seed), tmp_path / str(number))
        for number, seed in enumerate((0, 0, 1))
    ]
    assert numbers(runs[0]) == numbers(runs[1])
    assert numbers(runs[0]) != numbers(runs[2])


# Three steps an epoch, two epochs a norm: before anything is saved, and between saved epochs of both norms.
@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(11, marks=pytest.mark.slow)])
def test_an_interrupted_and_resumed_run_gives_the_same_bits(
    small_data: Path, tmp_path: Path, whole_run: RunResult, step: int
) -> None:
    config, out = whole_run.config, tmp_path / "run"
    with pytest.raises(train.Interrupted) as stopped:
        train.run(config, out, progress=Stop(step))
    done = [row for norm in stopped.value.result.norms for row in norm.epochs]
    assert len(done) == (step - 1) // 3
    with (out / "metrics.csv").open() as file:
        assert len(file.readlines()) == 1 + len(done)
    assert (out / "curves.png").exists() == bool(done)

    result = train.run(train.resume_config(out, {}), out, resume=True)
    assert numbers(result) == numbers(whole_run)
    for norm in config.norms:
        resumed, straight = weights(out, norm), weights(whole_run.folder, norm)
        assert all(torch.equal(resumed[name], straight[name]) for name in straight)


@pytest.fixture(scope="module")
def whole_run(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunResult:
    config = small_config(small_data, norms=["batch", "layer"], verify=True)
    return train.run(config, tmp_path_factory.mktemp("runs") / "whole")


def test_resuming_a_finished_run_trains_no_more(whole_run: RunResult) -> None:
    log = Log()
    result = train.run(whole_run.config, whole_run.folder, resume=True, progress=log)
    assert log.calls == ["begin 12 12", "end"]
    assert numbers(result) == numbers(whole_run)


def test_a_resumed_run_keeps_options_and_images(write_idx: Callable[..., Path], tmp_path: Path) -> None:
    data, out = write_idx(tmp_path / "images"), tmp_path / "run"
    config = small_config(data, epochs=1, norms=["none"])
    train.run(config, out)
    with pytest.raises(UserError, match="seed is 0, asked 1"):
        train.run(small_config(data, epochs=1, norms=["none"], seed=1), out, resume=True)
    write_idx(data, train=192)
    with pytest.raises(UserError, match="not those that this run began with"):
        train.run(config, out, resume=True)


def test_bad_input_leaves_no_folder(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than the 193 training images"):
        train.run(small_config(small_data, batch_size=194), tmp_path / "run")
    with pytest.raises(UserError, match="nor a folder that exists"):
        train.run(small_config(tmp_path / "nowhere"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_threads_and_random_state_are_given_back(small_data: Path, tmp_path: Path) -> None:
    seen: list[int] = []

    class Look(Progress):
        def step(self, step: Step) -> None:
            seen.append(torch.get_num_threads())

    before, state = torch.get_num_threads(), torch.get_rng_state()
    train.run(small_config(small_data, epochs=1, threads=before + 1), tmp_path / "run", progress=Look())
    assert set(seen) == {before + 1}
    assert torch.get_num_threads() == before
    assert torch.equal(torch.get_rng_state(), state)


def test_a_diverged_training_is_reported_as_valid_json(small_data: Path, tmp_path: Path) -> None:
    result = train.run(small_config(small_data, norms=["none"], lr=1e38), tmp_path / "run")
    assert not math.isfinite(result.norms[0].epochs[-1].train_loss)
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert tree["results"][0]["final_loss"] is None


@pytest.mark.slow
@pytest.mark.skipif(not train.data.DEBIAN_FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
def test_the_published_result_is_reached(tmp_path: Path) -> None:
    result = train.run(TrainConfig(data="fashion-mnist", norms=["batch", "none"]), tmp_path / "run")
    batch, none = (norm.epochs[-1] for norm in result.norms)
    assert batch.train_loss == pytest.approx(0.27, abs=0.015)
    assert batch.train_accuracy == pytest.approx(0.90, abs=0.01)
    assert batch.test_accuracy > 0.84
    assert none.train_accuracy < batch.train_accuracy - 0.05
    assert result.norms[1].epochs[0].train_accuracy < 0.2 < result.norms[0].epochs[0].train_accuracy


def no_model(state: dict[str, Any]) -> None:
    del state["model"]


def other_model(state: dict[str, Any]) -> None:
    state["model"]["linear3.bias"] = torch.zeros(3)


def other_optimizer(state: dict[str, Any]) -> None:
    state["optimizer"] = {"param_groups": []}


def no_result(state: dict[str, Any]) -> None:
    state["result"] = None


def loss_in_words(state: dict[str, Any]) -> None:
    state["result"]["epochs"][0]["train_loss"] = "low"


def other_fields(state: dict[str, Any]) -> None:
    state["result"]["early"] = [{"colour": "red"}]


def no_lockstep(state: dict[str, Any]) -> None:
    state["lockstep"] = {"free": {}, "optimizer": {}}


@pytest.mark.parametrize(
    "spoil", [no_model, other_model, other_optimizer, no_result, loss_in_words, other_fields, no_lockstep]
)
def test_a_checkpoint_of_something_else_is_named(
    whole_run: RunResult, tmp_path: Path, spoil: Callable[[dict[str, Any]], None]
) -> None:
    out = Path(shutil.copytree(whole_run.folder, tmp_path / "run"))
    state = torch.load(out / "checkpoint-layer.pt", weights_only=True)
    spoil(state)
    torch.save(state, out / "checkpoint-layer.pt")
    with pytest.raises(
        UserError, match=r"checkpoint-layer\.pt does not fit this run .* remove it to train 'layer' again"
    ):
        train.run(whole_run.config, out, resume=True)


def test_a_training_that_learned_nothing_is_told_as_that(whole_run: RunResult) -> None:
    assert "learned nothing" not in str(replace(whole_run, norms=[trained(0.9)]))
    (said,) = [line for line in str(replace(whole_run, norms=[trained(0.104)])).splitlines() if "learned" in line]
    assert said.startswith("none: has learned nothing in 7 epochs (accuracy 0.10, chance is 0.10)")
    assert "--lr none=RATE" in said


def test_the_legend_tells_a_training_that_learned_nothing() -> None:
    assert report.remark(trained(0.104)) == " (learned nothing in 7 epochs)"
    assert not report.remark(trained(0.9))


def trained(accuracy: float) -> NormResult:
    """A contender with one epoch of these accuracies."""
    row = EpochMetrics("none", "", 7, 2.3, accuracy, 2.3, accuracy, 1.0, 1.0)
    return NormResult("none", 1, epochs=[row])
