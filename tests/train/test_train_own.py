"""Somebody's own layers in the LeNet: found, built, trained, compared with torch.nn's, resumed."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from normkit import train
from normkit.errors import UserError
from normkit.train import NormResult, Progress, RunResult, TrainConfig, Verdict, contenders
from normkit.train.own import shown
from tests.train.layers import PLAIN_ATTRIBUTES, TEXTBOOK
from tests.train.stop import Stop

OWN = Path(__file__).parent / "own_layers.py"


class Notes(Progress):
    """Keeps what the user is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, message: str) -> None:
        self.said.append(message)


def named(name: str) -> str:
    return f"{OWN}:{name}"


def config_for(data: Path, *targets: str, **options: Any) -> TrainConfig:
    """One epoch of six steps."""
    fixed = {"data": str(data), "epochs": 1, "batch_size": 32, "impls": targets, "threads": 1}
    return TrainConfig(**{**fixed, **options})


def run(data: Path, out: Path, *targets: str, **options: Any) -> RunResult:
    return train.run(config_for(data, *targets, **options), out, draw=False)


def first_steps(verdict: Verdict) -> dict[str, int]:
    return {found.quantity: found.first_step for found in verdict.quantities if found.first_step is not None}


RIGHT = [
    ("batch", "RightBatchNorm"),
    ("batch", "UnsavedBatchNorm"),
    ("batch", "ModeArgumentBatchNorm"),
    ("batch", "FlagBatchNorm"),
    ("batch", "BatchNorm2d"),
    ("batch", "BatchNorm1d"),
    ("layer", "LayerNorm"),
    ("group", "GroupNormNHWC"),
    ("instance", "InstanceNorm"),
]


@pytest.mark.parametrize(("norm", "name"), RIGHT)
def test_a_right_layer_does_not_drift(small_data: Path, tmp_path: Path, norm: str, name: str) -> None:
    result = run(small_data, tmp_path / "run", named(name), norms=[norm])
    (verdict,) = result.verdicts
    assert first_steps(verdict) == {}
    assert result.passed
    compared = {"output", "gradient", "evaluation"} | ({"running_mean", "running_var"} if norm == "batch" else set())
    assert {found.quantity for found in verdict.quantities} == compared
    assert all(found.largest > 0 for found in verdict.quantities)  # zero would mean one compared with itself
    assert verdict.test_accuracy == verdict.twin_test_accuracy
    assert train.conclusion(verdict).endswith(f"{name}: same as torch.nn's in all 6 steps")


@pytest.mark.parametrize(
    ("name", "quantities", "layer"),
    [
        ("InvertedMomentumBatchNorm", {"running_mean": 1, "running_var": 1}, "norm1"),
        ("UnbiasedBatchNorm", {"output": 1, "running_mean": 1, "running_var": 1, "gradient": 1}, "norm2"),
        ("FrozenBatchNorm", {"running_mean": 1, "running_var": 1}, "norm1"),
        ("AlwaysTrainingBatchNorm", {"evaluation": 6}, "norm1"),
        ("DetachedBatchNorm", {"gradient": 1}, "norm4"),
    ],
)
def test_a_wrong_layer_drifts_where_it_is_wrong(
    small_data: Path, tmp_path: Path, name: str, quantities: dict[str, int], layer: str
) -> None:
    result = run(small_data, tmp_path / "run", named(name))
    (verdict,) = result.verdicts
    assert first_steps(verdict) == quantities
    assert not result.passed
    found = verdict.first_beyond[0]
    assert found.largest > 10 * found.tolerance
    assert found.layer == layer
    said = train.conclusion(verdict)
    assert f"{name} departs from torch.nn at step {found.first_step} in the " in said
    assert said.endswith(f": normkit check {shown(named(name))} says why")


def test_several_layers_are_told_apart_everywhere(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    targets = [TEXTBOOK, named("RightBatchNorm"), PLAIN_ATTRIBUTES, named("BatchNorm2d")]
    result = train.run(config_for(small_data, *targets, norms=["none", "batch"]), out)
    labels = [
        "none",
        "batch-normkit",
        "batch-torch",
        "batch-BatchNorm",
        "batch-RightBatchNorm",
        "batch-plain_attributes.BatchNorm2d",
        "batch-own_layers.BatchNorm2d",
    ]
    assert [norm.label for norm in result.norms] == labels
    expected = {"config.json", "metrics.csv", "metrics.json", "verify.csv", "curves.png", "drift.png"}
    expected |= {
        f"{kind}-{label}.{end}" for label in labels for kind, end in (("checkpoint", "pt"), ("activations", "png"))
    }
    assert {path.name for path in out.iterdir()} == expected == set(result.files)
    assert (out / "drift.png").read_bytes().startswith(b"\x89PNG")
    tree = json.loads((out / "metrics.json").read_text())
    assert tree == result.to_json()
    assert [row.get("impl", "") for row in tree["results"]] == [label.partition("-")[2] for label in labels]
    assert [row["impl"] for row in tree["verify"]] == [label.partition("-")[2] for label in labels[3:]]
    assert (out / "metrics.csv").read_text().splitlines()[2].startswith("batch,normkit,1,")
    rows = (out / "verify.csv").read_text().splitlines()
    assert rows[0].startswith("norm,impl,epoch,step,output,")
    assert len(rows) == 1 + 4 * 6


def test_all_start_from_the_same_weights_and_see_the_same_images(small_data: Path, tmp_path: Path) -> None:
    result = run(small_data, tmp_path / "run", named("RightBatchNorm"))
    normkit_, torch_, own = result.norms
    assert own.epochs[0].train_loss == pytest.approx(torch_.epochs[0].train_loss, rel=1e-5)
    assert normkit_.epochs[0].train_loss == pytest.approx(torch_.epochs[0].train_loss, rel=1e-5)
    assert own.twin_test_accuracy == torch_.epochs[0].test_accuracy  # the twin is that training


def test_verify_compares_normkits_layers_too(small_data: Path, tmp_path: Path) -> None:
    result = run(small_data, tmp_path / "run", named("RightBatchNorm"), verify=True)
    assert [verdict.impl for verdict in result.verdicts] == ["normkit", "RightBatchNorm"]


@pytest.mark.parametrize(
    ("targets", "norms", "says"),
    [
        (["NumPyBatchNorm"], ["batch"], "is a class that works on NumPy arrays.*write it as a torch.nn.Module"),
        (["batch_norm"], ["batch"], "is a function, which keeps no weights.*name a torch.nn.Module"),
        (["INSTANCE"], ["batch"], "is an instance.*name its class"),
        (["LayerNorm"], ["batch", "none"], "is layer normalization.*batch, none: add `norms=layer`"),
        (["RMSNorm"], ["layer"], "is RMS normalization, which has no place"),
        (["LayerNorm2d"], ["layer"], "over the channels at each position"),
        (["Missing"], ["batch"], "has no 'Missing'; it defines"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    small_data: Path, tmp_path: Path, targets: list[str], norms: list[str], says: str
) -> None:
    with pytest.raises(UserError, match=f"(?s){says}"):
        run(small_data, tmp_path / "run", *map(named, targets), norms=norms)
    assert list(tmp_path.iterdir()) == []


def test_a_layer_that_cannot_be_built_for_the_lenet_is_refused(small_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "narrow.py"
    file.write_text(
        "import torch\nclass BatchNorm(torch.nn.Module):\n"
        "    def __init__(self, num_features):\n        super().__init__()\n"
        "        if num_features > 100:\n            raise ValueError('too many')\n"
        "        self.inner = torch.nn.BatchNorm2d(num_features)\n"
        "    def forward(self, x):\n        return self.inner(x)\n"
    )
    with pytest.raises(UserError, match=r"cannot build .*narrow\.py:BatchNorm for 120 features: .*too many"):
        run(small_data, tmp_path / "run", f"{file}:BatchNorm")


def test_an_error_in_a_later_step_names_layer_place_and_command(small_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError) as raised:
        run(small_data, out, named("FailingBatchNorm"), batch_size=64, epochs=2)
    said = str(raised.value)
    assert "FailingBatchNorm raised ValueError: the sixth batch is one too many (own_layers.py:" in said
    # Three steps an epoch, each with one call, and one call for the test after the first epoch.
    assert ") at norm3, after linear 1, in step 5: normkit check " in said
    assert f"All epochs that were finished are in {out}" in said
    done = [(row["impl"], row["epoch"]) for row in json.loads((out / "metrics.json").read_text())["epochs"]]
    assert done == [("normkit", 1), ("normkit", 2), ("torch", 1), ("torch", 2), ("FailingBatchNorm", 1)]


def test_an_error_in_the_backward_pass_is_the_layers(small_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"raised ArithmeticError: no way back .* in the backward pass, in step 1"):
        run(small_data, tmp_path / "run", named("FailingBackwardBatchNorm"))


def numbers(result: NormResult) -> list[tuple[float, float]]:
    return [(row.train_loss, row.test_loss) for row in result.epochs]


def stopped_and_resumed(data: Path, out: Path, target: str) -> tuple[NormResult, list[str]]:
    """The last contender of a run that stops in the own layer's second epoch and goes on; what it said."""
    config = config_for(data, target, epochs=2, batch_size=64)
    with pytest.raises(train.Interrupted):
        train.run(config, out, progress=Stop(17), draw=False)
    notes = Notes()
    result = train.run(train.resume_config(out, {}), out, resume=True, progress=notes, draw=False)
    return result.norms[-1], notes.said


def test_a_layer_that_saves_its_statistics_resumes_to_the_same_bits(small_data: Path, tmp_path: Path) -> None:
    straight = run(small_data, tmp_path / "straight", named("RightBatchNorm"), epochs=2, batch_size=64).norms[-1]
    resumed, said = stopped_and_resumed(small_data, tmp_path / "run", named("RightBatchNorm"))
    assert numbers(resumed) == numbers(straight)
    assert resumed.differences == straight.differences
    assert said == resumed.lost_on_save == []


def test_a_layer_that_loses_its_statistics_is_told_so_on_resume(small_data: Path, tmp_path: Path) -> None:
    target = named("UnsavedBatchNorm")
    straight = run(small_data, tmp_path / "straight", target, epochs=2, batch_size=64).norms[-1]
    resumed, said = stopped_and_resumed(small_data, tmp_path / "run", target)
    assert straight.lost_on_save == []
    assert resumed.lost_on_save == ["running mean", "running variance"]
    (note,) = said
    assert "UnsavedBatchNorm loses its running mean and running variance on save: register_buffer" in note
    assert f"normkit check {shown(target)} says more" in note
    assert numbers(resumed)[0] == numbers(straight)[0]
    # It went on with what its user gets, a fresh layer's statistics: the training is the same, the test is not.
    assert resumed.epochs[1].train_loss == straight.epochs[1].train_loss
    assert resumed.epochs[1].test_loss != straight.epochs[1].test_loss
    state = torch.load(tmp_path / "run" / "checkpoint-batch-UnsavedBatchNorm.pt", weights_only=True)
    assert not any("moving" in name for name in state["model"])
    assert state["own_norms"]["norm1"]["running_mean"].shape == (6,)
    tree = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert tree["results"][-1]["lost_on_save"] == ["running mean", "running variance"]


def test_statistics_that_keep_the_graph_are_told_of(small_data: Path, tmp_path: Path) -> None:
    notes = Notes()
    config = config_for(small_data, named("AttachedBatchNorm"), named("RightBatchNorm"))
    train.run(config, tmp_path / "run", progress=notes, draw=False)
    (note,) = notes.said
    assert re.search(r"AttachedBatchNorm keeps the autograd graph of every step in its running mean, so memory", note)


def test_a_layer_that_was_changed_is_not_resumed(small_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(OWN.read_text())
    run(small_data, tmp_path / "run", f"{file}:RightBatchNorm")
    file.write_text(OWN.read_text() + "# changed\n")
    with pytest.raises(UserError, match=r"mine\.py:RightBatchNorm was changed since this run began"):
        train.run(train.resume_config(tmp_path / "run", {}), tmp_path / "run", resume=True, draw=False)


def test_building_and_trying_leave_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    contenders(TrainConfig(impls=[named("RightBatchNorm")]))
    assert torch.equal(before, torch.get_rng_state())


def test_paths_are_made_absolute_and_shown_from_where_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = TrainConfig(impls=["layers.py:Mine", "package.module:Mine", "torch"])
    assert config.impls == ("normkit", f"{tmp_path.resolve()}/layers.py:Mine", "package.module:Mine", "torch")
    assert [shown(target) for target in config.own_layers] == ["layers.py:Mine", "package.module:Mine"]
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


def test_images_can_be_larger(small_data: Path, tmp_path: Path) -> None:
    config = config_for(small_data, "torch", norms=["batch"], image_size=64, batch_size=64)
    result = train.run(config, tmp_path / "run", draw=False)
    state = torch.load(tmp_path / "run" / "checkpoint-batch.pt", weights_only=True)["model"]
    assert state["linear1.weight"].shape == (120, 400)
    assert math.isfinite(result.norms[0].epochs[0].test_loss)


def test_larger_images_need_more_memory() -> None:
    small, large = (train.memory.bytes_per_image(TrainConfig(image_size=size)) for size in (28, 224))
    assert large > 60 * small
    assert train.step.test_batch(28) == 1024
    assert train.step.test_batch(224) == 16


def test_a_layer_without_weight_and_bias_is_told_that_it_lacks_them(small_data: Path, tmp_path: Path) -> None:
    result = run(small_data, tmp_path / "run", named("BareBatchNorm"))
    assert [norm.without_affine for norm in result.norms] == [[], [], ["weight", "bias"]]
    hints = [line for line in str(result).splitlines() if "has no weight and bias" in line]
    assert len(hints) == 1
    assert "own_layers.py:BareBatchNorm has no weight and bias, and the layers beside it have" in hints[0]
    assert "normkit check" in hints[0]
