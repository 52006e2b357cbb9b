"""What a report says the code computes, and how a target is built without being told."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import planted_articles as articles
import planted_modules as modules
import pytest
import torch

from normkit.checking import Options, Report
from normkit.checking.run import examine
from normkit.checking.target.errors import CannotRunError
from normkit.errors import UserError


def test_torch_batch_norm() -> None:
    identity = examine(torch.nn.BatchNorm2d).identity
    assert identity.reduces == "N, H, W: per channel"
    assert identity.layout == "NCHW"
    assert identity.ranks == (4,)
    assert identity.variance == "biased"
    assert identity.eps == pytest.approx(1e-5, rel=1e-3)
    assert identity.eps_place == "inside"
    assert identity.update_mean == pytest.approx((0.9, 0.1), abs=1e-4)
    assert identity.update_var == pytest.approx((0.9, 0.1), abs=1e-4)
    assert identity.running_variance == "unbiased"
    assert identity.initial == {"running_mean": "0", "running_var": "1"}
    assert identity.evaluation == "normalizes by the running statistics"
    assert identity.output_shape == "as the input"
    assert identity.output_dtype["float32"] == "float32"
    assert set(identity.saved or ()) == {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    assert identity.parameters == {"weight": "(6,), starts at 1", "bias": "(6,), starts at 0"}


@pytest.mark.parametrize(
    ("target", "field", "value"),
    [
        (modules.WholeTensor, "reduces", "N, C, H, W: the whole tensor"),
        (modules.PerSampleStatistics, "reduces", "H, W: per sample and channel"),
        (modules.GroupNorm, "reduces", "2 groups of 3 neighbouring channels and H, W, of each sample"),
        (modules.Unbiased, "variance", "unbiased"),
        (modules.EpsOutside, "eps_place", "outside"),
        (modules.EpsAsFloor, "eps_place", "clamp"),
        (modules.EpsMissing, "eps_place", "missing"),
        (modules.EpsSquared, "eps", 1e-10),
        (modules.AnotherEps, "eps", 1e-3),
        (modules.KerasMomentum, "update_mean", (0.9, 0.1)),
        (modules.BiasedRunningVariance, "running_variance", "biased"),
        (modules.IgnoresRunningStatistics, "evaluation", "normalizes as in training, by the statistics of its input"),
        (modules.RMSNorm, "centred", False),
        (articles.BatchNormChannelsLast, "layout", "NHWC"),
        (articles.batch_norm_d2l, "update_var", (0.9, 0.1)),
        (articles.LayerNormNumPy, "library", "numpy"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_measured(target: Any, field: str, value: Any) -> None:
    measured = getattr(examine(target).identity, field)
    assert measured == (pytest.approx(value, rel=2e-3) if isinstance(value, float | tuple) else value)


@pytest.mark.parametrize(
    "name",
    ["dim", "num_features", "num_channels", "features", "C", "num_dims", "normalized_shape", "d_model", "hidden_size"],
)
def test_constructor_arguments_by_their_usual_names(name: str) -> None:
    scope: dict[str, Any] = {"Base": modules.LayerNorm}
    exec(f"class LayerNorm(Base):\n    def __init__(self, {name}):\n        super().__init__({name})\n", scope)
    report = examine(scope["LayerNorm"])
    assert report.codes == (("trailing-axes",) if name == "normalized_shape" else ())  # it averages over one axis
    assert report.identity.parameters["weight"].startswith("(6,)")


def test_family_by_experiment_where_the_name_tells_nothing() -> None:
    report = examine(articles.Standardize)
    assert (report.family, report.family_reason) == ("layer", "by what it averages over")


def test_parameters_with_unusual_names_are_found_by_their_start() -> None:
    class LayerNorm(torch.nn.Module):
        def __init__(self, features: int) -> None:
            super().__init__()
            self.a_2 = torch.nn.Parameter(torch.ones(features))
            self.b_2 = torch.nn.Parameter(torch.zeros(features))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a_2 * torch.nn.functional.layer_norm(x, x.shape[-1:]) + self.b_2

    assert set(examine(LayerNorm).identity.parameters) == {"a_2", "b_2"}


def test_explicit_convention_binds() -> None:
    assert not examine(modules.KerasMomentum, Options(convention="torch")).ok
    assert examine(modules.FlaxLike, Options(convention="flax")).findings == ()
    assert "momentum-inverted" in examine(torch.nn.BatchNorm2d, Options(convention="keras")).codes


def test_features_init_and_call() -> None:
    report = examine(modules.GroupNorm, Options(features=12, init={"num_groups": 4, "eps": 1e-3}))
    assert str(report.identity.reduces).startswith("4 groups of 3 neighbouring channels")
    assert report.identity.eps == pytest.approx(1e-3, rel=1e-3)
    report = examine(articles.layer_norm, Options(call={"eps": 0.1}))
    assert report.identity.eps == pytest.approx(0.1, rel=1e-3)


def test_family_override_changes_the_verdict() -> None:
    assert examine(torch.nn.LayerNorm).ok
    assert examine(torch.nn.LayerNorm, Options(family="rms")).codes == ("formula-wrong",)


def test_what_was_tried_and_what_would_help() -> None:
    class BatchNorm:
        def __init__(self, num_features: int) -> None:
            raise RuntimeError("needs a licence")

        def __call__(self, x: Any) -> Any:
            return x

    with pytest.raises(CannotRunError) as caught:
        examine(BatchNorm)
    assert "needs a licence" in str(caught.value)
    assert "--init NAME=VALUE" in str(caught.value)


def test_an_argument_that_nobody_knows() -> None:
    class LayerNorm:
        def __init__(self, dim: int, flavour: int) -> None:
            self.flavour = flavour

        def __call__(self, x: Any) -> Any:
            return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)

    assert examine(LayerNorm).identity.built == "LayerNorm(6, 6)"
    assert examine(LayerNorm, Options(init={"flavour": 3})).identity.built == "LayerNorm(6, 3)"


@pytest.mark.parametrize("target", [3, "text", None, object()])
def test_not_a_layer(target: Any) -> None:
    with pytest.raises(CannotRunError, match="expected a class, an instance or a function"):
        examine(target)


def test_class_without_a_call() -> None:
    class BatchNorm:
        def backward(self, dy: Any) -> Any:
            return dy

    with pytest.raises(CannotRunError, match=r"has neither, and no method that takes an input\. Pass --method NAME"):
        examine(BatchNorm)


def test_method_under_another_name() -> None:
    class LayerNorm:
        def describe(self, text: str) -> str:
            return f"a layer: {len(text)}"

        def standardized(self, x: Any) -> Any:
            return ((x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)).astype(x.dtype)

    assert examine(LayerNorm).codes == ("affine-missing",)
    assert examine(LayerNorm, Options(method="standardized")).codes == ("affine-missing",)
    with pytest.raises(CannotRunError, match="it returned str"):
        examine(LayerNorm, Options(method="describe"))


def test_unknown_method() -> None:
    with pytest.raises(CannotRunError, match="LayerNorm has no method 'normalize'; it has: forward"):
        examine(modules.LayerNorm, Options(method="normalize"))


def test_built_in_function() -> None:
    with pytest.raises(CannotRunError, match="wrap it in a Python function"):
        examine(torch.batch_norm)


@pytest.mark.parametrize("options", [{"family": "weight"}, {"convention": "jax"}, {"features": 0}])
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="was given"):
        Options(**options)


def test_report_survives_json() -> None:
    report = examine(modules.Unbiased)
    plain = json.loads(json.dumps(report.to_dict()))
    assert {"target", "family", "identity", "findings", "ok"} <= set(plain)
    assert set(plain["findings"][0]) >= {"code", "severity", "message", "evidence", "fix"}
    assert Report.from_dict(plain) == report


def test_report_is_frozen() -> None:
    report = examine(torch.nn.LayerNorm)
    with pytest.raises(AttributeError):
        report.family = "batch"  # type: ignore[misc]


def test_published_example() -> None:
    facts = Path(__file__).parent / "published_whole_tensor.json"
    case = json.loads(facts.read_text())
    y = articles.BatchNorm2D().forward(np.array(case["input"]))
    np.testing.assert_allclose(y, case["whole_tensor"], atol=5e-9)
