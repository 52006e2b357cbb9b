"""Targets that were misread: each is now told for what it is."""

from typing import Any

import planted_misread as misread
import planted_modules as modules
import pytest
import torch

from normkit.checking.options import Options
from normkit.checking.run import examine
from normkit.checking.target.errors import CannotRunError


@pytest.mark.parametrize(
    "target",
    [
        misread.layer_norm_swapped,
        misread.BatchNormSwapped,
        *(
            pytest.param(target, marks=pytest.mark.slow)
            for target in (misread.GammaBetaSwapped, misread.LayerNormSwapped, misread.group_norm_swapped)
        ),
    ],
    ids=lambda target: target.__name__,
)
def test_weight_and_bias_in_each_other_s_place(target: Any) -> None:
    report = examine(target)
    assert [(f.code, f.severity) for f in report.findings if not f.edge] == [("affine-swapped", "error")]
    assert report.family in ("layer", "batch", "group")


def test_a_weight_that_is_added() -> None:
    found = {f.code: (f.severity, f.message) for f in examine(misread.RMSNormThatShifts).findings if not f.edge}
    assert found.pop("affine-swapped") == ("error", "weight is added, and multiplies nothing")
    assert found == {"affine-missing": ("warning", "has no weight")}


def test_weight_and_bias_under_each_other_s_name_that_start_right() -> None:
    (finding,) = [f for f in examine(misread.GammaBetaRenamed).findings if not f.edge]
    assert (finding.code, finding.severity) == ("affine-swapped", "warning")
    assert finding.message == "gamma is added, and beta multiplies"


@pytest.mark.parametrize(
    ("target", "weights", "expected"),
    [
        (misread.AveragesPlainly, "cumulative", ("note", "averages all batches plainly, as momentum=None does in")),
        (
            misread.AveragesPlainlyWhateverIsAsked,
            "cumulative",
            ("error", "the momentum argument is ignored: all "),
        ),
        (misread.AveragesWithTheStart, "changing", ("error", "the weight of a batch changes from step to step")),
        (misread.AveragesPlainlyAtFirst, "changing", ("error", "the weight of a batch changes from step to step")),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_how_much_each_batch_weighs(target: Any, weights: str, expected: tuple[str, str]) -> None:
    report = examine(target)
    assert report.identity.batch_weights == weights
    (finding,) = [f for f in report.findings if f.code == "momentum-differs"]
    assert finding.severity == expected[0]
    assert finding.message.startswith(expected[1])
    assert ("the plain average of all batches: new = (n - 1)" in str(report)) == (weights == "cumulative")
    assert (report.twin == "torch.nn.BatchNorm2d(..., momentum=None)") == (weights == "cumulative")


def test_the_plain_average_is_torch_s_where_none_is_asked_for() -> None:
    report = examine(torch.nn.BatchNorm2d, Options(init={"momentum": None}))
    assert (report.verdict, report.findings) == ("equivalent", ())
    assert report.twin == "torch.nn.BatchNorm2d(..., momentum=None)"
    assert report.identity.batch_weights == "cumulative"


def test_a_momentum_of_the_other_meaning_is_explained_without_a_number_of_ours() -> None:
    (finding,) = [f for f in examine(modules.MomentumInverted).findings if f.code == "momentum-inverted"]
    assert "0.1" not in finding.why


@pytest.mark.parametrize(
    ("target", "runs"),
    [
        (torch.nn.BatchNorm2d, "the forward pass of torch.nn.BatchNorm2d"),
        (misread.AveragesPlainly, "the forward pass of torch.nn.BatchNorm2d"),
        (torch.nn.functional.layer_norm, "torch.nn.functional.layer_norm itself"),
        (misread.StyleNorm, "torch.nn.InstanceNorm2d (norm)"),
        (misread.GammaBetaSwapped, "torch's operation native_layer_norm"),
        (modules.LayerNorm, None),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_runs_torch_s_own_code_is_said_to(target: Any, runs: str | None) -> None:
    report = examine(target)
    assert report.identity.runs == runs
    assert ("torch's own code is measured, not the author's" in " ".join(str(report).split())) == (runs is not None)


def test_running_statistics_of_each_position_are_told() -> None:
    report = examine(misread.BatchNormOfPositions)
    assert [(f.code, f.severity) for f in report.findings if not f.edge] == [("wrong-axes", "error")]
    assert report.identity.evaluation == "normalizes by the running statistics, of shape (1, 6, 3, 4)"
    assert report.identity.update_mean == (0.9, 0.1)


@pytest.mark.parametrize(
    "target",
    [torch.nn.Linear, torch.nn.Conv2d, torch.nn.ReLU, torch.nn.Sigmoid],
    ids=lambda target: target.__name__,
)
def test_what_normalizes_nothing_is_held_against_no_family(target: Any) -> None:
    report = examine(target)
    assert (report.family, report.verdict, report.findings) == ("other", "not judged", ())
    assert "it normalizes nothing: ten times the input" in report.not_judged[0]


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (
            misread.Network,
            "It holds 3 norms: first, second (torch.nn.BatchNorm2d); last (OwnLayerNorm). Check OwnLayer",
        ),
        (misread.Block, "with Conv2d as well. It holds 1 norm: norm (torch.nn.BatchNorm2d). All are torch.nn's own"),
        (misread.Block(7), "Block is a model rather than a norm"),
        (misread.make_network, "make_network is a model rather than a norm"),
        (misread.AddsToItsInput, "with Linear as well. It holds 1 norm: norm (torch.nn.LayerNorm)"),
        (misread.OfImagesOf32, "with Conv2d, Linear as well. It holds 1 norm: norm (torch.nn.BatchNorm2d)"),
        (torch.nn.Sequential(torch.nn.LazyLinear(6), torch.nn.LayerNorm(6)), "with Linear as well. It holds 1 norm: 1"),
    ],
    ids=lambda value: getattr(value, "__name__", "instance"),
)
def test_a_whole_model_is_refused_with_the_norms_in_it(target: Any, said: str) -> None:
    with pytest.raises(CannotRunError, match="is a model rather than a norm: it computes with ") as caught:
        examine(target)
    assert said in str(caught.value)


def test_a_norm_whose_further_input_passes_a_layer_is_no_model() -> None:
    assert examine(misread.StyleNorm).verdict == "equivalent"
