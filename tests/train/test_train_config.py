"""Options: defaults, limits, and what a resumed run accepts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from normkit.errors import UserError
from normkit.train import TrainConfig


def test_defaults_follow_the_published_experiment() -> None:
    config = TrainConfig(data="fashion-mnist")
    assert (config.epochs, config.batch_size, config.lr, config.norms) == (10, 256, 1.0, ("batch",))
    assert config.impls == ("normkit",)


def test_digits_have_their_own_epochs_and_batches() -> None:
    config = TrainConfig()
    assert (config.data, config.epochs, config.batch_size, config.lr) == ("digits", 20, 64, 1.0)
    assert TrainConfig(epochs=3).epochs == 3


def test_threads_and_folders_are_filled_in(tmp_path: Path) -> None:
    assert TrainConfig().threads == torch.get_num_threads()
    assert TrainConfig(data="fashion-mnist", data_dir=tmp_path).data_dir == str(tmp_path.resolve())
    assert TrainConfig(norms=["layer"]) == TrainConfig(norms=("layer",))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"norms": ["btach"]},
            "unknown norm 'btach': choose from batch, layer, group, instance, none; did you mean batch",
        ),
        ({"impls": ["troch"]}, "did you mean torch"),
        ({"lr": {"batch": 0.0}}, "`lr` must be a finite number above 0, not 0.0"),
        ({"lr": {"bacth": 1.0}}, "unknown norm 'bacth'.*did you mean batch"),
        ({"lr": {"none": 1.0}}, "`lr` names none, and the norms to train are batch"),
        ({"epochs": "3"}, "`epochs` must be a whole number, not '3'"),
        ({"epochs": 2.5}, "`epochs` must be a whole number, not 2.5"),
        ({"seed": True}, "`seed` must be a whole number"),
        ({"lr": "fast"}, "`lr` must be"),
        ({"verify": 1}, "`verify` must be True or False"),
        ({"norms": []}, "no norm to train"),
        ({"norms": ["batch", "batch"]}, "more than once"),
        ({"impls": ["jax"]}, "unknown implementation 'jax': choose from normkit, torch, or name a layer of your own"),
        ({"impls": []}, "no implementation to train"),
        ({"impls": ["torch", "torch"]}, "'torch' is given more than once"),
        ({"impls": ["layers.py:Mine"], "sync": True}, "drop `sync`"),
        ({"image_size": 15}, "`image_size` must be 16 or more, not 15"),
        ({"epochs": 0}, "`epochs` must be 1 or more, not 0"),
        ({"batch_size": 0}, "`batch_size` must be 1 or more"),
        ({"batch_size": 1}, "variance of a single value is 0"),
        ({"lr": -0.5}, "`lr` must be a finite number above 0, not -0.5"),
        ({"lr": 0.0}, "`lr` must be"),
        ({"lr": float("nan")}, "`lr` must be"),
        ({"lr": float("inf")}, "`lr` must be"),
        ({"seed": -1}, "`seed` must be between 0 and"),
        ({"seed": 2**32}, "`seed` must be between 0 and"),
        ({"threads": 0}, "`threads` must be between 1 and"),
        ({"threads": 1000}, "`threads` must be between 1 and"),
        ({"verify": True, "impls": ["torch"]}, "drop one of them"),
        ({"data_dir": "somewhere"}, "has no meaning with `data=digits`"),
    ],
)
def test_bad_values_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        TrainConfig(**options)


def test_batches_of_one_are_for_norms_within_a_sample() -> None:
    assert TrainConfig(norms=["layer", "none"], batch_size=1).batch_size == 1


def test_json_gives_the_same_options_back() -> None:
    config = TrainConfig(data="some/folder", norms=["layer", "none"], lr=0.25, verify=True)
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert Path(config.data).is_absolute()


@pytest.mark.parametrize("spoil", [{"epochs": 0}, {"colour": "red"}])
def test_json_that_was_spoilt_is_refused(spoil: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        TrainConfig.from_json({**TrainConfig().to_json(), **spoil})


def test_a_resumed_run_accepts_its_own_options_and_no_others() -> None:
    config = TrainConfig(norms=["batch", "none"], lr=0.5)
    config.check_same({})
    config.check_same({"lr": 0.5, "norms": ["batch", "none"]})
    with pytest.raises(UserError, match=r"lr is 0\.5, asked 0\.1; seed is 0, asked 7"):
        config.check_same({"lr": 0.1, "seed": 7})


def test_a_resumed_run_may_grow_but_not_shrink() -> None:
    config = TrainConfig(epochs=5)
    config.check_same({"epochs": 9})
    with pytest.raises(UserError, match="epochs is 5, asked 4"):
        config.check_same({"epochs": 4})


def test_each_norm_has_a_learning_rate() -> None:
    config = TrainConfig(norms=["batch", "layer", "none"], lr={"none": 0.25, "layer": 0.5})
    assert [config.lr_of(norm) for norm in config.norms] == [1.0, 0.5, 0.25]
    assert TrainConfig.from_json(json.loads(json.dumps(config.to_json()))) == config
    assert TrainConfig(norms=["batch", "none"], lr=0.5).lr == 0.5
    assert TrainConfig(norms=["batch", "none"], lr={"batch": 0.5, "none": 0.5}).lr == 0.5
