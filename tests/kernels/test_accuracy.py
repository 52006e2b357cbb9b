"""The error of the kernels against float64, in units in the last place of the output's type."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

import normkit
from normkit import reference
from normkit.spec import Norm
from tests.cases import CASES, Case, Draw, draw, layouts, to_numpy
from tests.kernels.run import Results, run

# one view of each sort: runs and columns, folded rows, several chunks, several tiles, weights by place and by row
SHAPES = [(70, 6), (3, 6, 33, 7), (130, 64, 3, 3), (3, 4100, 2)]
# a norm of two elements is +1 and -1: its gradients cancel, and its two weights sum 12,300 terms that nearly do
CASES_OF_SHAPES = [case for case in dict.fromkeys(CASES) if case.shape in SHAPES and case.norm.normalized_shape != (2,)]
PAIRS = [(case, last) for case in CASES_OF_SHAPES for last in layouts(case.shape) if str(case) != "instance-3x4100x2"]
SMALL = [(case, last) for case, last in PAIRS if len(case.shape) == 2 or case.shape == (3, 6, 33, 7)]
every_pair = pytest.mark.parametrize(("case", "last"), PAIRS, ids=str)
every_small_pair = pytest.mark.parametrize(("case", "last"), SMALL, ids=str)

HALF = (torch.bfloat16, torch.float16)
FAR_UNITS = 24  # where a block is summed about a pivot that is just not far enough off to be summed again
UNITS = 4  # in the last place, of the largest value of an output


def units(actual: Tensor, expected: np.ndarray) -> float:
    """The largest error in units in the last place of the largest expected value."""
    scale = max(np.abs(expected).max(), torch.finfo(actual.dtype).tiny) * torch.finfo(actual.dtype).eps
    return float(np.abs(to_numpy(actual) - expected).max() / scale)


def errors(case: Case, data: Draw, results: Results) -> dict[str, float]:
    """Units of error of all results."""
    x, dy, weight, bias = (to_numpy(t) for t in (data.x, data.dy, data.weight, data.bias))
    exact = reference.gradients(dy, x, case.norm, weight, data.eps)
    expected = {
        "y": reference.normalize(x, case.norm, weight, bias, data.eps).y,
        "dx": exact.dx,
        "dweight": exact.dweight,
        "dbias": exact.dbias,
    }
    found = {name: getattr(results, name) for name in expected}
    return {name: units(found[name], expected[name]) for name in expected if found[name] is not None}


def shifted(case: Case, dtype: torch.dtype, last: bool, ratio: float, scale: float = 1.0) -> Draw:
    """Data whose mean is `ratio` standard deviations."""
    data = draw(case, torch.float64, last)
    x = ((data.x - 1.5) / 2.5 + ratio) * scale
    weight, bias = (None if t is None else t.to(dtype) for t in (data.weight, data.bias))
    return Draw(x.to(dtype), data.dy.to(dtype), weight, bias, data.eps)


@pytest.mark.parametrize("dtype", [torch.float32, *(pytest.param(h, marks=pytest.mark.slow) for h in HALF)], ids=str)
@pytest.mark.parametrize("ratio", [1.0, 1e2, 1e4])
@every_pair
def test_error_is_a_few_units_in_the_last_place(case: Case, last: bool, ratio: float, dtype: torch.dtype) -> None:
    data = shifted(case, dtype, last, ratio)
    found = errors(case, data, run(case, data))
    assert {name: value for name, value in found.items() if value > UNITS} == {}


MANY = (4, 32, 56, 56)
MANY_ROWS = [
    Case(Norm("batch"), MANY),
    Case(Norm("instance"), MANY),
    Case(Norm("channel"), MANY),
    *(Case(Norm("group", num_groups=groups), MANY) for groups in (1, 2, 8)),
    Case(Norm("layer", normalized_shape=MANY[1:]), MANY),
    Case(Norm("layer", normalized_shape=(56,)), MANY),
]


@pytest.mark.parametrize("last", [False, True], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("case", MANY_ROWS, ids=str)
def test_sums_of_many_rows_are_as_exact(case: Case, last: bool) -> None:
    data = draw(case, torch.float32, last, "both")
    found = errors(case, data, run(case, data))
    assert {name: value for name, value in found.items() if value > UNITS} == {}


@every_small_pair
def test_a_mean_of_a_million_deviations_does_no_worse_than_torch(case: Case, last: bool) -> None:
    data = shifted(case, torch.float32, last, 1e6)
    ours, torchs = errors(case, data, run(case, data)), errors(case, data, run(case, data, use_torch=True))
    assert {name: value for name, value in ours.items() if value > max(torchs[name], UNITS)} == {}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@every_small_pair
def test_half_precision_is_rounded_once(case: Case, last: bool, dtype: torch.dtype) -> None:
    data = shifted(case, dtype, last, 1e2)
    assert max(errors(case, data, run(case, data)).values()) < 0.6


@pytest.mark.parametrize("scale", [1e30, 1e-30])
@every_small_pair
def test_huge_and_tiny_values_do_no_worse_than_torch(case: Case, last: bool, scale: float) -> None:
    data = shifted(case, torch.float32, last, 1.0, scale)
    ours, torchs = errors(case, data, run(case, data)), errors(case, data, run(case, data, use_torch=True))
    worse = {name for name, value in ours.items() if not value <= UNITS and not np.isnan(torchs[name])}
    assert {name for name in worse if not ours[name] <= torchs[name]} == set()


# both kernels: long runs, and columns (folded, wide, with weights by row)
CONSTANT = [
    *((Case(Norm(kind), shape), last) for kind in ("batch", "instance") for shape, last in (
        ((6, 5, 23, 23), False), ((6, 5, 23, 23), True), ((3, 1500, 5, 5), True))),
    (Case(Norm("batch"), (90, 6)), False),
    (Case(Norm("batch"), (90, 1500)), False),
    (Case(Norm("group", num_groups=2), (6, 8, 23, 23)), False),
    (Case(Norm("group", num_groups=2), (6, 8, 23, 23)), True),
    (Case(Norm("channel"), (6, 300, 7, 7)), False),
    (Case(Norm("channel"), (6, 300, 7, 7)), True),
    (Case(Norm("layer", normalized_shape=(5000,)), (9, 5000)), False),
]  # fmt: skip
MAGNITUDES = [0.1, 1.0, -3.0, 123.456, -7.7e3, 1e4 / 3, 1e8 / 7, -1e30, 1e38, 1e-30, 1e-40, 0.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("case", "last"), CONSTANT, ids=str)
def test_constant_values_give_exactly_the_bias(case: Case, last: bool, dtype: torch.dtype) -> None:
    data = draw(case, dtype, last)
    bias = reference.normalize(np.zeros(case.shape), case.norm, None, to_numpy(data.bias)).y
    for magnitude in MAGNITUDES if dtype is not torch.float64 else [*MAGNITUDES, 1e155, 1e200, -1e300]:
        y = run(case, replace(data, x=torch.full_like(data.x, magnitude))).y
        assert np.array_equal(to_numpy(y), bias), magnitude


@pytest.mark.parametrize("neighbour", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize(("case", "last"), [pair for pair in CONSTANT if pair[0].norm.kind == "batch"], ids=str)
def test_a_constant_channel_beside_a_bad_one_gives_exactly_its_bias(case: Case, last: bool, neighbour: float) -> None:
    data = draw(case, torch.float32, last)
    data.x[:, 0] = data.x[:, 0].sign() * neighbour
    data.x[:, 1] = 123.456
    y = run(case, data).y
    assert data.bias is not None
    assert bool((y[:, 1].transpose(0, -1) == data.bias[1]).all())


# What may be wrong with the first guess of a mean. Each spoils data that lie one deviation about 1e4.
SPOILED = {
    "the first value is 0": lambda x: x[(0,) * x.dim()].fill_(0.0),
    "the first value is 1e8": lambda x: x[(0,) * x.dim()].fill_(1e8),
    "the first sample lies far away": lambda x: x[0].add_(1e6),
    "the first rows lie far away": lambda x: x[..., :2].add_(3e4),
    "half of the samples lie far away": lambda x: x[: x.shape[0] // 2 + 1].add_(5e3),
    "every other value lies far away": lambda x: x[..., ::2].add_(1e5),
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
@every_small_pair
def test_a_bad_first_guess_of_the_mean_costs_little(case: Case, last: bool, spoil: Callable[[Tensor], object]) -> None:
    data = shifted(case, torch.float32, last, 1e4)
    spoil(data.x)
    found = errors(case, data, run(case, data))
    assert found["y"] <= FAR_UNITS, found


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@every_small_pair
def test_a_value_that_is_not_finite_stays_where_it_is(case: Case, last: bool, bad: float) -> None:
    data = draw(case, torch.float32, last)
    clean = run(case, data)
    data.x[(1,) * data.x.dim()] = bad
    with np.errstate(invalid="ignore"):
        exact = reference.normalize(to_numpy(data.x), case.norm, eps=data.eps).y
    found = run(case, data)
    hit = torch.from_numpy(~np.isfinite(exact))  # the whole unit, of which an infinite root mean square leaves zeros
    unit = torch.from_numpy(np.isnan(reference.normalize(np.where(data.x.isfinite(), 0.0, np.nan), case.norm).y))
    assert bool(hit.any())
    assert bool((found.y.isfinite() == ~hit).all())
    assert bool((found.dx.isfinite() | unit).all())
    hit = unit
    assert units(found.y[~hit], to_numpy(clean.y[~hit])) <= UNITS
    assert units(found.dx[~hit], to_numpy(clean.dx[~hit])) <= UNITS


every_nan = pytest.mark.parametrize("digits", [0x7FFFFFFF, -1, 0x7FC00000], ids=["of CUDA", "of ones", "of torch"])


@every_nan
@pytest.mark.parametrize(("case", "last"), [pair for pair in SMALL if pair[0].norm.subtract_mean], ids=str)
def test_nan_of_any_digits_stays_nan(case: Case, last: bool, digits: int) -> None:
    """In bfloat16, where the digits of NaN are rounded as if they were a number's, some would become zero."""
    data = draw(case, torch.float32, last)
    bad = torch.tensor(digits, dtype=torch.int32).view(torch.float32)
    for spoiled in (data.weight, data.bias):
        assert spoiled is not None
        kept = spoiled.clone()
        spoiled.view(-1)[1] = bad
        found = run(case, replace(data, x=data.x.bfloat16(), dy=data.dy.bfloat16()))
        expected = run(case, data, use_torch=True)
        assert bool(found.y.isnan().any())
        assert torch.equal(found.y.isnan(), expected.y.isnan())
        assert torch.equal(found.dx.isnan(), expected.dx.isnan())
        spoiled.copy_(kept)


@every_nan
@pytest.mark.parametrize("last", [False, True])
def test_nan_of_given_statistics_stays_nan(last: bool, digits: int) -> None:
    x = torch.randn(3, 6, 33, 7).to(memory_format=torch.channels_last if last else torch.contiguous_format)
    for spoiled in range(2):
        given = torch.zeros(6), torch.ones(6)
        given[spoiled][1] = torch.tensor(digits, dtype=torch.int32).view(torch.float32)
        with normkit.use_backend("numba"):
            y = normkit.functional.batch_norm(x.bfloat16(), *given)
        expected = torch.zeros_like(y, dtype=torch.bool)
        expected[:, 1] = True
        assert torch.equal(y.isnan(), expected)
