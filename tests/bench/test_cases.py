"""The table: its rows, its targets, and choosing from it."""

import re
from collections import defaultdict
from typing import Any

import pytest

from normkit import layers
from normkit.bench import memory
from normkit.bench.cases import (
    BOTH,
    DEFAULT,
    DEFAULT_TARGET,
    EVALUATION,
    FORWARD,
    ITEM_BYTES,
    LARGE_BYTES,
    RETAINED,
    STEP,
    ModelCase,
    NormCase,
    Row,
)
from normkit.bench.models import MODELS
from normkit.bench.table import CASES, HEADLINES, MODEL_NAMES, ROW_BY_NAME, ROWS, SMALLEST, select
from normkit.errors import UserError

NORM_CASES = [case for case in CASES if isinstance(case, NormCase)]
# Lazy layers become the others in their first step; the ranks of SyncBatchNorm have a benchmark of their own.
TIMED_LAYERS = {name for name in layers.__all__ if not name.startswith("Lazy")} - {"SyncBatchNorm"}
NAME = re.compile(r"(?P<norm>\w+) \((?P<shape>[\d,]+)\) .*?(?P<dtype>b?float\d\d)( with float32 parameters)?")


def test_names_are_unique() -> None:
    assert len(ROW_BY_NAME) == len(ROWS) == sum(len(case.passes) for case in CASES)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_name_says_what_the_row_is(row: Row) -> None:
    assert row in select(row.name)
    case = row.case
    if isinstance(case, ModelCase):
        assert row.name.split()[0] == case.model
        assert row.name.endswith(f" {STEP}")
    else:
        parsed = NAME.fullmatch(row.name.removesuffix(f" {row.pass_}"))
        assert parsed is not None
        assert parsed["norm"] == case.norm
        assert tuple(map(int, parsed["shape"].split(","))) == case.shape
        assert parsed["dtype"] == case.dtype
    assert ("channels_last" in row.name.split()) == case.channels_last


def test_every_layer_is_timed() -> None:
    assert {case.norm for case in NORM_CASES} == TIMED_LAYERS
    assert set(MODEL_NAMES) == set(MODELS)


def test_every_dtype_is_timed() -> None:
    dtypes = defaultdict(set)
    for case in NORM_CASES:
        dtypes[case.dtype].add(case.norm)
    assert dtypes.keys() == ITEM_BYTES.keys()
    for dtype, norms in dtypes.items():
        assert {"BatchNorm2d", "LayerNorm"} <= norms or dtype == "float32", dtype
    assert dtypes["float32"] == TIMED_LAYERS
    assert {case.norm for case in NORM_CASES if case.mixed} == {"BatchNorm2d", "LayerNorm"}


def test_both_layouts_are_timed() -> None:
    layouts = defaultdict(set)
    for case in NORM_CASES:
        layouts[case.norm, len(case.shape)].add(case.channels_last)
    both = {key for key, found in layouts.items() if found == {True, False}}
    assert both == {
        ("BatchNorm1d", 3),
        ("BatchNorm2d", 4),
        ("BatchNorm3d", 5),
        ("BatchNormAct2d", 4),
        ("GroupNorm", 4),
        ("InstanceNorm2d", 4),
        ("LayerNorm2d", 4),
    }
    assert all(False in found for found in layouts.values())


@pytest.mark.parametrize("case", NORM_CASES, ids=lambda case: case.name)
def test_a_case_can_be_built_and_judged(case: NormCase) -> None:
    if case.channels_last:
        assert len(case.shape) in (3, 4, 5)
    if case.norm == "GroupNorm":
        assert case.groups > 1
        assert case.shape[1] % case.groups == 0
    assert case.axes < len(case.shape)
    assert case.headline or case.targets == (DEFAULT_TARGET, DEFAULT_TARGET), "a target of its own makes a headline"
    assert min(case.targets) >= DEFAULT_TARGET


def test_every_bar_belongs_to_a_row() -> None:
    for case in HEADLINES:
        for pass_, target in zip((FORWARD, BOTH), case.targets, strict=True):
            row = ROW_BY_NAME[f"{case.name} {pass_}"]
            assert row.case.target(row.pass_, RETAINED) == target
        assert max(case.targets) > DEFAULT_TARGET
    assert {case for case in NORM_CASES if case.headline} == set(HEADLINES)


def test_memory_is_counted_in_cases_that_are_timed() -> None:
    assert set(memory.CASES) <= set(CASES)
    assert set(HEADLINES) <= set(memory.CASES)


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
def test_bars(name: str, forward: float, both: float) -> None:
    (case,) = [case for case in CASES if case.name == name]
    assert (case.target(FORWARD, RETAINED), case.target(BOTH, RETAINED), case.target(EVALUATION, RETAINED)) == (
        forward,
        both,
        0.9,
    )


def test_bars_of_a_default_process() -> None:
    large, small = NormCase("BatchNorm2d", (64, 64, 112, 112), (4, 3)), NormCase("BatchNorm1d", (8, 64), (4, 3))
    assert large.target(FORWARD, DEFAULT) == 2.0
    assert small.target(FORWARD, DEFAULT) == 0.9
    assert ModelCase("mobilenet", (1.7, 1.0)).target(STEP, RETAINED) == 1.7
    assert ModelCase("mobilenet", (1.7, 1.0)).target(STEP, DEFAULT) == 1.0


def test_select_by_words_in_any_case() -> None:
    rows = select("batchnorm2D channels_last Evaluation")
    assert rows
    for row in rows:
        assert isinstance(row.case, NormCase)
        assert row.case.norm == "BatchNorm2d"
        assert row.case.channels_last
    assert {row.pass_ for row in rows} == {EVALUATION}


def test_select_models() -> None:
    assert {row.name for row in select(models=["lenet"])} == {"lenet training step"}
    rows = select(models=["resnet", "convnext"], quick=True)
    assert {row.name.split()[0] for row in rows} == {"resnet", "convnext"}
    assert {row.pass_ for row in rows} == {STEP}


def test_quick_rows_are_the_smallest_and_the_headlines_that_are_not_large() -> None:
    quick = {row.case for row in select(quick=True)}
    small = {case for case in HEADLINES if case.nbytes <= LARGE_BYTES} | {case for case in SMALLEST if case.smallest}
    assert quick == small
    assert set(HEADLINES) - quick
    assert {(8, 64), (1, 16, 4, 4), (1, 768)} <= {case.shape for case in quick if isinstance(case, NormCase)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "nonsense"}, "`text` 'nonsense' matches none of .* rows; a row is called, for example,"),
        ({"models": ["vgg"]}, "`models` must be one of mobilenet, resnet, lenet, convnext, not 'vgg'"),
    ],
)
def test_select_errors(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        select(**arguments)
