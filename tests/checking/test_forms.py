"""How a layer is built, called and read is found out by what it does: each form has its right verdict."""

from pathlib import Path
from typing import Any

import numpy as np
import planted_affine as affine
import planted_backward as backward
import planted_calls as calls
import planted_holders as holders
import planted_kinds as kinds
import planted_modes as modes
import planted_results as results
import pytest

from normkit.checking.options import Options
from normkit.checking.report import Report
from normkit.checking.run import examine
from normkit.checking.target.errors import CannotRunError

Codes = dict[str, str]

BY_STATISTICS = "normalizes by the running statistics"


def codes_of(report: Report) -> Codes:
    return {finding.code: finding.severity for finding in report.findings}


def named(value: Any) -> str:
    return getattr(value, "__name__", "")


def with_fault(fault: type, target: type) -> type:
    """A right layer with one method replaced by a wrong one."""
    return type(target.__name__, (fault, target), {"__module__": target.__module__})


# Where running statistics are kept

SHARED: Codes = {"not-copyable": "error"}
HOLDERS: dict[Any, Codes] = {
    holders.InAttributes: {},
    holders.InSlots: {},
    holders.InDict: {},
    holders.InNestedDict: {},
    holders.InList: {},
    holders.InTuple: {},
    holders.InStackedArray: {},
    holders.InListsOfNumbers: {},
    holders.InOwnObject: {},
    holders.InFrozenDataclass: {},
    holders.BesideWhatIsDerived: {},
    holders.BesideTheLastBatch: {},
    holders.InClassAttributes: SHARED,
    holders.InClosure: SHARED,
    holders.InModule: SHARED,
    holders.InTupleOfModule: SHARED,
}


@pytest.mark.parametrize(("target", "expected"), HOLDERS.items(), ids=named)
def test_running_statistics_are_found_wherever_they_are(target: Any, expected: Codes) -> None:
    report = examine(target)
    assert codes_of(report) == expected
    assert report.identity.update_mean == pytest.approx((0.9, 0.1), abs=1e-4)
    assert report.identity.evaluation == BY_STATISTICS


@pytest.mark.parametrize(("target", "expected"), HOLDERS.items(), ids=named)
def test_a_fault_in_them_is_named_wherever_they_are(target: Any, expected: Codes) -> None:
    faulty = with_fault(holders.Biased, target)
    assert codes_of(examine(faulty)) == {"biased-running-var": "error", **expected}


def test_cells_of_a_closure() -> None:
    report = examine(holders.make_batch_norm)
    assert codes_of(report) == {}
    assert report.identity.parameters == {"gain": "(6,), starts at 1", "shift": "(6,), starts at 0"}
    assert codes_of(examine(holders.make_biased_batch_norm)) == {"biased-running-var": "error"}


def test_averages_of_something_else_are_no_running_variance() -> None:
    assert codes_of(examine(holders.InverseDeviations)) == {"running-var-wrong": "error"}
    assert codes_of(examine(holders.MeansOfSquares))["running-var-wrong"] == "error"


@pytest.mark.xfail(strict=True, reason="the mean beside an average of squares is not found")
def test_a_mean_beside_an_average_of_squares() -> None:
    assert "running-stats-missing" not in codes_of(examine(holders.MeansOfSquares))


def test_sums_that_evaluation_divides_by_their_number_are_used() -> None:
    assert "eval-ignores-running-stats" not in codes_of(examine(holders.Sums))


# How it is told whether it trains


@pytest.mark.parametrize(
    "target",
    [
        modes.ByFlagOfAnyName,
        modes.ByRequiredFlag,
        modes.ByNumber,
        modes.ByWord,
        modes.ByEnumeration,
        modes.ByAttribute,
        modes.ByAttributeOfAnEnumeration,
        modes.BySetMode,
        modes.ByTwoMethods,
        modes.ByTrainOfAFlag,
        modes.EvaluatesUnlessTold,
        modes.ByTheMethodThatIsCalled,
    ],
    ids=named,
)
def test_the_mode_is_what_makes_it_use_its_statistics(target: Any) -> None:
    report = examine(target)
    assert codes_of(report) == {}
    assert report.verdict == "equivalent"
    assert report.identity.evaluation == BY_STATISTICS


def test_no_evaluation_found_is_said_and_no_fault() -> None:
    report = examine(modes.IgnoresItsMode)
    assert (report.verdict, codes_of(report)) == ("not judged", {})
    assert "no evaluation was found" in report.not_judged[0]


# Weight and bias

AROUND_ANOTHER_START: Codes = {"affine-offset": "note"}
ONE_NUMBER: Codes = {"affine-shape": "error"}


@pytest.mark.parametrize(
    ("target", "expected", "places"),
    [
        (affine.InParameterList, {}, ["learned.0", "learned.1"]),
        (affine.InParameterDict, {}, ["learned.a", "learned.b"]),
        (affine.UnderOtherNames, {}, ["first", "second"]),
        (affine.OneNumberEach, ONE_NUMBER, ["a", "b"]),
        (affine.AsLogarithm, AROUND_ANOTHER_START, ["logarithm", "shift"]),
        (affine.AroundOne, AROUND_ANOTHER_START, ["gain", "shift"]),
        (affine.WithoutBias, {"affine-missing": "warning"}, ["factor"]),
        (affine.GivenPerBroadcast, {"affine-shape": "note"}, ["a", "b"]),
        (affine.LayerNormOfNumbers, ONE_NUMBER, ["gamma", "beta"]),
        (affine.LayerNormOfParams, {}, ["params['W']", "params['shift']"]),
        pytest.param(
            affine.OfTwoRows,
            {},
            ["both[0]", "both[1]"],
        ),
        pytest.param(
            affine.NamesExchanged,
            {"affine-swapped": "warning"},
            ["bias", "weight"],
        ),
        pytest.param(
            affine.LayerNormOfNumbersOfAnyName,
            ONE_NUMBER,
            ["alpha", "beta"],
        ),
        pytest.param(
            affine.LayerNormOfC,
            {},
            ["W", "c"],
        ),
    ],
    ids=named,
)
def test_weight_and_bias_are_what_scales_and_shifts(target: Any, expected: Codes, places: list[str]) -> None:
    report = examine(target)
    assert codes_of(report) == expected
    assert list(report.identity.parameters) == places


# What becomes of the result


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (results.InDict, {}),
        (results.InTuple, {}),
        (results.AsDataclass, {}),
        (results.AsOwnObject, {}),
        (results.KeptInOutput, {"not-copyable": "error"}),
        (results.InPlaceOfInput, {"input-mutated": "error", "empty-batch": "note"}),
        (results.InPlaceOfInputAndReturned, {"input-mutated": "error"}),
        (results.NumPyInOutput, {"affine-missing": "warning"}),
        (results.NumPyInAnotherAttribute, {"affine-missing": "warning"}),
        (results.NumPyInPlace, {"affine-missing": "warning", "input-mutated": "error", "empty-batch": "note"}),
        pytest.param(
            results.AfterWhatIsNormalized,
            {},
        ),
    ],
    ids=named,
)
def test_the_result_is_found(target: Any, expected: Codes) -> None:
    report = examine(target)
    assert report.family == "layer"
    assert codes_of(report) == expected


def test_an_object_whose_gradients_cannot_be_followed_is_not_judged() -> None:
    report = examine(results.NumPyAsOwnObject)
    assert (report.verdict, codes_of(report)) == ("not judged", {"affine-missing": "warning"})
    assert "it returns a Tensor, an object of its own" in report.conclusion()


# How it is built and called


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (calls.PassesOnEverything, {}),
        (calls.ClassMethodLayerNorm, {"half-accumulation": "warning"}),
        (calls.partial_layer_norm, {}),
        (calls.make_layer_norm, {}),
        (calls.SeveralMethods, {}),
        (calls.ColumnBatchNorm, {"affine-shape": "warning", "empty-batch": "note"}),
        (
            calls.layer_norm_of_one_sample,
            {"affine-missing": "warning", "rank-unsupported": "warning", "empty-batch": "note"},
        ),
        (calls.ConditionalBatchNorm2d, {}),
        (calls.AlphaBatchNorm2d, {}),
        (calls.AlphaOfTheOldBatchNorm2d, {"momentum-inverted": "note"}),
        pytest.param(
            calls.PassesOnKeywords,
            {},
        ),
        pytest.param(
            calls.layer_norm_of_lists,
            {"affine-missing": "warning", "empty-batch": "note"},
        ),
        pytest.param(
            calls.AdaptiveInstanceNorm2d,
            {},
        ),
    ],
    ids=named,
)
def test_it_is_called_as_its_author_does(target: Any, expected: Codes) -> None:
    report = examine(target)
    assert codes_of(report) == expected
    assert report.verdict == "equivalent"


def test_a_factory_of_functions() -> None:
    report = examine(calls.group_norm_of)
    assert report.family == "group"
    assert codes_of(report) == {"output-dtype": "warning"}  # its cells stay in float32
    assert report.identity.parameters == {"weight": "(6,), starts at 1", "bias": "(6,), starts at 0"}


ADAPTER = f"{Path(calls.__file__)}:make_without_branch"


@pytest.mark.parametrize(
    ("target", "options"),
    [
        (calls.ConditionalBatchNorm2d, Options(init={"num_classes": 10}, call={"labels": "randint(10)"})),
        (calls.MaskedBatchNorm2d, Options(call={"valid": "mask(N,H,W)"})),
        (calls.SeveralMethods, Options(method="all_of_it")),
        (calls.ConditionalBatchNorm2d, Options(init={"num_classes": 3}, call={"labels": "randint(3)"})),
        (calls.AdaptiveLayerNorm, Options(init={"num_classes": 10}, call={"labels": "randint(10)"})),
        (calls.StyleTransfer, Options(family="instance", call={"style": "randn"})),
        (calls.NeedsTwoInputs, Options(adapter=ADAPTER)),
    ],
    ids=named,
)
def test_what_cannot_be_guessed_is_given(target: Any, options: Options) -> None:
    report = examine(target, options)
    assert {*codes_of(report)} <= {"half-accumulation"}  # the style image keeps the input's dtype
    assert report.verdict == "equivalent"


def test_what_a_further_scale_hides_is_not_said_to_be_right() -> None:
    report = examine(calls.UnbiasedStyleTransfer, Options(family="instance", call={"style": "randn"}))
    assert {*codes_of(report)} <= {"half-accumulation", "empty-batch"}
    assert "hides" in report.skipped["unbiased-normalization"]
    assert report.identity.variance is None
    assert "but for the scale and the shift that its further inputs give" in report.conclusion()


@pytest.mark.xfail(strict=True, reason="the first mask that runs is taken, not the first that fits")
def test_the_mask_with_which_it_fits_is_taken() -> None:
    assert {"wrong-axes", "formula-wrong", "affine-ignored"} <= {*examine(calls.MaskedMeansBatchNorm1d).passed}


@pytest.mark.xfail(strict=True, reason="another image is taken for a weight")
def test_a_guess_is_held_against_nobody() -> None:
    with pytest.raises(CannotRunError, match="--call style="):
        examine(calls.StyleTransfer)


def test_the_chosen_method_is_the_one_that_is_judged() -> None:
    assert "formula-wrong" in codes_of(examine(calls.SeveralMethods, Options(method="centre_only")))


def test_a_refusal_shows_a_way_that_works() -> None:
    with pytest.raises(CannotRunError, match=r"--adapter FILE\.py:make"):
        examine(calls.NeedsTwoInputs)
    report = examine(calls.NeedsTwoInputs, Options(adapter=ADAPTER))
    assert (report.family, report.verdict, report.target) == ("layer", "equivalent", "NeedsTwoInputs")


def test_a_refusal_shows_each_outcome_once_and_the_most_telling_first() -> None:
    with pytest.raises(CannotRunError) as refusal:
        examine(calls.AnswersInWords)
    outcomes = [line for line in str(refusal.value).splitlines() if line.startswith("  - ")]
    assert "it returned str, not an array" in outcomes[0]
    assert "on a numpy array of shape" in outcomes[0]
    said = [outcome.partition("raised ")[2].partition(" (")[0] for outcome in outcomes]
    assert len(said) == len(set(said)) > 3


def test_an_adapter_may_tell_the_mode() -> None:
    report = examine(calls.StagedBatchNorm2d, Options(adapter=f"{Path(calls.__file__)}:make_staged"))
    assert report.verdict == "equivalent"
    assert report.identity.evaluation == BY_STATISTICS
    assert report.identity.parameters == {"layer.weight": "(6,), starts at 1", "layer.bias": "(6,), starts at 0"}


# Backward passes written by hand

BACKWARD = [
    backward.OfInputAndGradient,
    backward.WithRate,
    backward.IntoDict,
    backward.IntoAttributes,
    backward.AsDict,
    backward.InAnotherOrder,
    backward.WithOptimizer,
    backward.UnderAnotherName,
]


@pytest.mark.parametrize("target", BACKWARD, ids=named)
def test_a_right_backward_pass(target: Any) -> None:
    report = examine(target)
    assert codes_of(report) == {}
    assert "gradient-wrong" in report.passed


@pytest.mark.parametrize("target", BACKWARD, ids=named)
def test_a_wrong_backward_pass(target: Any) -> None:
    assert codes_of(examine(with_fault(backward.Detached, target))) == {"statistics-detached": "error"}


def test_a_wrong_static_backward_pass() -> None:
    assert codes_of(examine(backward.StaticLayerNorm)) == {"statistics-detached": "error"}


# Families


@pytest.mark.parametrize(
    ("target", "family", "expected"),
    [
        (kinds.Normalize, "rms", {}),
        (kinds.Standard, "batch", {}),
        (kinds.LayerNorm, "rms", {"another-name": "note"}),
        (kinds.LayerNorm2d, "group", {"another-name": "note"}),
        (
            kinds.GlobalLayerNorm,
            "group",
            {"rank-unsupported": "warning", "another-name": "note", "half-accumulation": "warning"},
        ),
        (kinds.LayerNormWithoutMean, "layer", {"formula-wrong": "error"}),
    ],
    ids=named,
)
def test_the_family_is_what_fits(target: Any, family: str, expected: Codes) -> None:
    report = examine(target)
    assert (report.family, codes_of(report)) == (family, expected)


@pytest.mark.parametrize("target", [kinds.LayerNorm, kinds.LayerNorm2d], ids=named)
def test_another_family_than_the_name_promises_is_said(target: Any) -> None:
    assert examine(target).family_reason == "by its numbers, though its name says layer normalization"


def over_samples(x: Any, gamma: Any, beta: Any) -> Any:
    """Right for (C, N), and over the samples for (N, C)."""
    mean, var = x.mean(axis=0), x.var(axis=0)
    return (gamma * (x - mean) / np.sqrt(var + 1e-5) + beta).astype(x.dtype)


def test_columns_that_nothing_asks_for_are_not_judged() -> None:
    report = examine(over_samples, Options(family="layer"))
    assert (report.identity.layout, report.verdict) == ("CN", "not judged")
    assert "nothing in it says which is meant" in report.not_judged[0]
    rows = examine(over_samples, Options(family="layer", call={"gamma": "ones(C)"}))
    assert "wrong-axes" in rows.codes
    columns = examine(over_samples, Options(family="layer", call={"gamma": "ones(C,1)", "beta": "zeros(C,1)"}))
    assert (columns.identity.layout, columns.verdict) == ("CN", "equivalent")


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (kinds.GRN, "global response normalization (GRN)"),
        (kinds.ILN, "a blend of instance and layer normalization"),
        (kinds.SwitchNorm2d, "its axes are those of no family"),
        (kinds.PixelNorm, "it averages over N, C, as no family does"),
    ],
    ids=named,
)
def test_what_is_of_no_family_is_named_and_not_judged(target: Any, reason: str) -> None:
    report = examine(target)
    assert (report.family, report.family_reason, report.verdict) == ("other", reason, "not judged")
    assert "Equivalent" not in str(report)


def test_weight_standardization_is_refused_by_name() -> None:
    with pytest.raises(CannotRunError, match="WSConv2d standardizes its weights"):
        examine(kinds.WSConv2d)
