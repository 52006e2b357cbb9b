"""Every code is fired by a planted fault, alone, and the correct twin fires nothing."""

from typing import Any

import planted_articles as articles
import planted_misread as misread
import planted_modules as modules
import planted_variants as variants
import pytest
import torch

from normkit.checking.rules import RULES
from normkit.checking.run import examine

CORRECT: list[Any] = [
    modules.BatchNorm,
    modules.LayerNorm,
    modules.LayerNormTrailingAxes,
    modules.GroupNorm,
    modules.RMSNorm,
    articles.BatchNormLoops,
    articles.LayerNormNumPy,
    articles.Standardize,
    articles.batch_norm_any_order,
    articles.layer_norm,
    articles.group_norm,
    articles.instance_norm,
    variants.SizeUnderAnotherName,
    variants.RunningStatisticsCalledMeanAndVar,
    variants.ConstantBesideTheWeight,
    variants.LayerNormAllButBatchInItsName,
]

# target: the codes that it fires, each with its severity; a second code is implied by the same fault
PLANTED: dict[Any, dict[str, str]] = {
    modules.FailsInEvaluation: {"call-fails": "error"},
    modules.FlattensOutput: {"output-shape": "error"},
    modules.PromotesToDouble: {"output-dtype": "error"},
    articles.BatchNormPromotes: {"output-dtype": "warning"},
    modules.AddsNoise: {"not-deterministic": "error"},
    modules.AddsGlobalNoise: {"not-deterministic": "error"},
    modules.InPlace: {"input-mutated": "error"},
    modules.PassesFreshInputThrough: {"output-aliases-input": "error"},
    modules.Prints: {"prints": "warning"},
    misread.BatchNormSwapped: {"affine-swapped": "error"},
    modules.WholeTensor: {"wrong-axes": "error"},
    modules.PerSampleStatistics: {"wrong-axes": "error"},
    modules.MeanAndVarianceDiffer: {"wrong-axes": "error"},
    modules.LayerNormOverTwoAxes: {"wrong-axes": "error"},
    modules.LayerNormOverTime: {"rank-unsupported": "warning"},  # as if it were made for (N, C)
    articles.BatchNorm2D: {"wrong-axes": "error", "running-stats-missing": "warning", "affine-missing": "warning"},
    modules.GroupNormStrided: {"group-order": "error"},
    modules.GroupNormPerGroupWeight: {"group-order": "error"},
    modules.GroupNormNHWC: {"group-order": "error"},
    modules.LengthAsRank: {"batch-size-dependent": "error"},
    modules.BatchNorm1d: {"rank-unsupported": "error"},
    articles.batch_norm_rows: {"rank-unsupported": "warning"},
    modules.DividesByVariance: {"formula-wrong": "error"},
    modules.RMSNormCentred: {"formula-wrong": "error"},
    modules.Unbiased: {"unbiased-normalization": "error"},
    modules.LayerNormLastAxisAlone: {"trailing-axes": "warning"},
    modules.LayerNormTwoAxesOfThree: {"trailing-axes": "warning"},
    modules.LayerNormUnbiased: {"unbiased-normalization": "error"},
    modules.EpsMissing: {"eps-missing": "error"},
    modules.EpsOutside: {"eps-misplaced": "error"},
    modules.EpsAsFloor: {"eps-misplaced": "error"},
    modules.EpsOutsideInEvaluation: {"eps-misplaced": "error"},
    modules.EpsIgnored: {"eps-differs": "error"},
    modules.EpsSquared: {"eps-differs": "error"},
    modules.AnotherEps: {"eps-differs": "note"},
    articles.rms_norm: {"eps-differs": "note"},
    modules.NoRunningStatistics: {"running-stats-missing": "warning"},
    modules.NeverUpdates: {"running-stats-not-updated": "error"},
    modules.UsesOldTwice: {"running-stats-frozen": "error"},
    modules.StartsAtZeroVariance: {"running-stats-init": "error"},
    modules.StartsFromFirstBatch: {"running-stats-init": "warning"},
    modules.RunningStandardDeviation: {"running-var-wrong": "error"},
    modules.BiasedRunningVariance: {"biased-running-var": "error"},
    articles.BatchNormLoopsBiased: {"biased-running-var": "error"},
    modules.MomentumInverted: {"momentum-inverted": "error"},
    modules.KerasMomentum: {"momentum-inverted": "note"},
    modules.FlaxLike: {"momentum-inverted": "note", "biased-running-var": "note"},
    articles.BatchNormChannelsLast: {"momentum-inverted": "note", "biased-running-var": "note"},
    articles.batch_norm_channels_last: {"momentum-inverted": "note", "biased-running-var": "note"},
    modules.AnotherMomentum: {"momentum-differs": "note"},
    modules.MomentumIgnored: {"momentum-differs": "error"},
    modules.CoefficientsDoNotAddUp: {"momentum-differs": "error"},
    modules.MomentumNoneIsNotCumulative: {"momentum-none": "error"},
    modules.UpdatesInEvaluation: {"running-stats-updated-in-eval": "error"},
    modules.IgnoresRunningStatistics: {"eval-ignores-running-stats": "error"},
    modules.TrainsOnRunningStatistics: {"train-uses-running-stats": "error"},
    modules.SwitchesOnGrad: {"mode-by-grad": "error"},
    modules.PlainAttributes: {"state-not-saved": "error"},
    modules.KeepsTheGraph: {"state-attached": "error"},
    modules.HoldsALock: {"not-copyable": "error"},
    modules.SharesItsState: {"not-copyable": "error"},
    modules.ParametersAsTensors: {"parameters-not-registered": "error"},
    modules.StartsAtZeroWeight: {"affine-init": "error"},
    modules.WeightPerBroadcast: {"affine-shape": "warning"},
    modules.OneWeightForAll: {"affine-shape": "error"},
    modules.NoWeight: {"affine-missing": "warning"},
    modules.WeightUnused: {"affine-ignored": "error"},
    modules.RMSNormGemma: {"affine-offset": "note"},
    modules.Detached: {"statistics-detached": "error"},
    modules.VarianceDetached: {"statistics-detached": "error"},
    articles.LayerNormNumPyForgetsVariance: {"statistics-detached": "error"},
    modules.GradientHalved: {"gradient-wrong": "error"},
    modules.ThroughNumPy: {"gradient-wrong": "error"},
    articles.LayerNormNumPyWrongBias: {"gradient-wrong": "error"},
    modules.OnePassVariance: {"cancellation": "error"},
    articles.BatchNormLoopsOnePass: {"cancellation": "error"},
    modules.HalfStatistics: {"half-accumulation": "warning"},
    modules.LayerNormHalf: {"half-accumulation": "warning"},
    modules.RMSNormLlama: {"rms-dtype-order": "warning"},
    modules.NoCheckForOneValue: {"single-value": "error"},
    modules.ZerosForOneValue: {"single-value": "warning"},
    modules.NoCheckForEmptyBatch: {"empty-batch": "warning"},
    modules.ViewsItsInput: {"non-contiguous": "error"},
    modules.ReadsMemory: {"non-contiguous": "error"},
    modules.ChannelsLastByMistake: {"channels-last-wrong": "error"},
    modules.AveragesByMatrix: {"nan-spreads": "error"},
    modules.Seeds: {"global-state": "error"},
    modules.SwitchesGradOff: {"global-state": "error"},
    variants.ChannelsFirst: {"rank-unsupported": "warning", "affine-shape": "warning"},
    variants.RectifiesItsOutput: {"formula-wrong": "error"},
    variants.LosesTheOrderOfAxes: {"wrong-axes": "error"},
    variants.SumOfSquares: {"formula-wrong": "error"},
    variants.WeightBeforeNormalizing: {"affine-ignored": "error"},
    variants.TinyEpsOutside: {"eps-misplaced": "error"},
    variants.RefusesFloat64: {"output-dtype": "warning"},
    variants.DifferentMomentumForVariance: {"unbiased-normalization": "error", "momentum-differs": "error"},
    variants.BatchNormalizationKeras: {"momentum-inverted": "note", "biased-running-var": "note"},
    variants.layernorm_forward: {"rank-unsupported": "warning"},
    variants.spatial_batch_norm: {"wrong-axes": "error"},
    variants.LayerNormOfT5: {"another-name": "note"},
    articles.batch_norm_d2l: {
        "mode-by-grad": "error",
        "half-accumulation": "warning",
        "empty-batch": "warning",
        "momentum-inverted": "note",
        "biased-running-var": "note",
        "affine-shape": "note",
    },
    articles.batch_norm_every_call_trains: {
        "rank-unsupported": "warning",
        "empty-batch": "warning",
        "momentum-inverted": "note",
        "biased-running-var": "note",
    },
    articles.batch_norm_every_call_trains_torch: {
        "single-value": "error",
        "empty-batch": "warning",
    },
    articles.batch_norm_with_batch_statistics: {"biased-running-var": "error", "single-value": "warning"},
    articles.batchnorm_forward: {
        "running-stats-init": "error",
        "empty-batch": "warning",
        "momentum-inverted": "note",
        "biased-running-var": "note",
    },
    articles.bn_wrong_forward: {
        "gradient-wrong": "error",
        "running-stats-init": "error",
        "empty-batch": "warning",
        "momentum-inverted": "note",
        "biased-running-var": "note",
    },
    articles.bn_detached_forward: {
        "statistics-detached": "error",
        "running-stats-init": "error",
        "empty-batch": "warning",
        "momentum-inverted": "note",
        "biased-running-var": "note",
    },
}


@pytest.mark.parametrize("target", CORRECT, ids=lambda target: target.__name__)
def test_correct_twin_fires_nothing(target: Any) -> None:
    assert examine(target).findings == ()


@pytest.mark.parametrize(("target", "expected"), PLANTED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_fault_fires_its_code_alone(target: Any, expected: dict[str, str]) -> None:
    report = examine(target)
    assert {finding.code: finding.severity for finding in report.findings} == expected


def test_every_code_is_planted() -> None:
    assert {code for codes in PLANTED.values() for code in codes} == set(RULES)


def test_whole_tensor_is_named() -> None:
    finding = examine(articles.BatchNorm2D).findings[0]
    assert finding.message == "averages over the whole tensor"
    assert "360 of 360" in finding.evidence


def test_what_a_reshape_did_is_named() -> None:
    assert "other places" in examine(variants.LosesTheOrderOfAxes).findings[0].message
    assert "every 6th element of memory" in examine(variants.spatial_batch_norm).findings[0].message
    assert "sum of squares" in examine(variants.SumOfSquares).findings[0].message


def test_settings_and_generators_are_left_as_they_were() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    examine(modules.SwitchesGradOff)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_default_dtype() is torch.float32
    assert torch.is_grad_enabled()
