"""The table: its rows, its bars, and choosing from it."""

import pytest

from normkit.bench.cases import (
    BOTH,
    CASES,
    DEFAULT,
    EVALUATION,
    FORWARD,
    HEADLINES,
    KEPT,
    MODEL_NAMES,
    ROWS,
    SMALLEST,
    STEP,
    ModelCase,
    NormCase,
    select,
)
from normkit.bench.models import MODELS
from normkit.errors import UserError


def test_names_are_unique():
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)


def test_every_norm_layout_and_type_is_in_the_table():
    norms = [case for case in CASES if isinstance(case, NormCase)]
    assert {case.dtype for case in norms} == {"float32", "float64", "bfloat16", "float16"}
    dimensions = {f"{kind}Norm{d}d" for kind in ("Batch", "Instance") for d in (1, 2, 3)}
    assert {case.norm for case in norms} == dimensions | {
        *("LayerNorm", "RMSNorm", "GroupNorm", "LayerNorm2d", "BatchNormAct2d")
    }
    assert {case.norm for case in norms if case.channels_last} >= {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d"}
    assert {(8, 64), (1, 16, 4, 4), (1, 768)} <= {case.shape for case in SMALLEST}
    assert set(MODEL_NAMES) == set(MODELS)


@pytest.mark.parametrize(
    ("name", "forward", "both"),
    [
        ("BatchNorm2d (32,64,56,56) float32", 3.3, 2.5),
        ("BatchNorm2d (32,256,14,14) channels_last float32", 2.0, 2.2),
        ("RMSNorm (8192,4096) bfloat16", 6.0, 8.0),
        ("InstanceNorm2d (8,320,64,64) channels_last float32", 4.0, 4.0),
        ("LayerNorm2d (32,96,56,56) float32", 1.9, 2.8),
        ("LayerNorm (129,513) float32", 0.9, 0.9),
    ],
)
def test_bars(name, forward, both):
    (case,) = [case for case in CASES if case.name == name]
    assert (case.bar(FORWARD, KEPT), case.bar(BOTH, KEPT), case.bar(EVALUATION, KEPT)) == (forward, both, 0.9)


def test_bars_of_a_default_process():
    large, small = NormCase("BatchNorm2d", (64, 64, 112, 112), (4, 3)), NormCase("BatchNorm1d", (8, 64), (4, 3))
    assert large.bar(FORWARD, DEFAULT) == 2.0
    assert small.bar(FORWARD, DEFAULT) == 0.9
    assert ModelCase("mobilenet", (1.7, 1.0)).bar(STEP, KEPT) == 1.7
    assert ModelCase("mobilenet", (1.7, 1.0)).bar(STEP, DEFAULT) == 1.0


def test_select_by_words_in_any_case():
    rows = select("batchnorm2D channels_last Evaluation")
    assert rows
    assert all(row.case.norm == "BatchNorm2d" and row.case.channels_last for row in rows)
    assert {row.measured for row in rows} == {EVALUATION}


def test_select_models():
    assert {row.name for row in select(models=["lenet"])} == {"lenet training step"}
    assert {row.case.model for row in select(models=["resnet", "convnext"], quick=True)} == {"resnet", "convnext"}


def test_quick_rows_are_the_smallest_and_the_headlines_that_are_not_large():
    quick = {row.case for row in select(quick=True)}
    assert set(SMALLEST) & quick
    assert {case for case in HEADLINES if case not in quick} == {case for case in HEADLINES if case.nbytes > 64_000_000}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "nonsense"}, "--filter 'nonsense' matches none of .* rows; a row is called, for example,"),
        ({"models": ["vgg"]}, "--model must be one of mobilenet, resnet, lenet, convnext, not 'vgg'"),
    ],
)
def test_select_errors(arguments, message):
    with pytest.raises(UserError, match=message):
        select(**arguments)
