"""The sets of cells and the weights of a case are those of torch.nn's layers, found by changing one element."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from normkit.errors import UserError
from normkit.explaining.case import Case, case_of

# (kind, shape, channels_last, further arguments)
CASES: list[tuple[str, tuple[int, ...], bool, dict[str, Any]]] = [
    ("batch", (2, 3, 2, 2), False, {}),
    ("batch", (2, 2, 2, 3), True, {}),
    ("batch", (3, 2, 4), True, {}),
    ("batch", (3, 4), False, {}),
    ("batch", (2, 3, 2, 1, 2), False, {}),
    ("instance", (2, 3, 4), False, {}),
    ("instance", (2, 4, 3), True, {}),
    ("group", (2, 6, 2), False, {"num_groups": 3}),
    ("group", (2, 2, 2, 4), True, {"num_groups": 2}),
    ("group", (3, 4), False, {}),
    ("layer", (2, 3, 2, 2), False, {}),
    ("layer", (2, 3, 4), True, {}),
    ("layer", (2, 3, 4), False, {"normalized_shape": (4,)}),
    ("rms", (2, 3, 4), True, {}),
    ("rms", (2, 3, 4), False, {}),
    ("channel", (2, 3, 2, 2), False, {}),
    ("channel", (2, 2, 2, 3), True, {}),
]


def torchs(case: Case, x: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
    """The same normalization by torch.nn.functional, of an array of any layout."""
    last = case.channels_last and case.kind in ("batch", "instance", "group")
    first = case.kind == "channel" and not case.channels_last
    tensor = torch.from_numpy(x)
    if last:
        tensor = tensor.movedim(-1, 1)
    if first:
        tensor = tensor.movedim(1, -1)
    w = None if weight is None else torch.from_numpy(weight)
    sizes = case.norm.normalized_shape or tuple(tensor.shape[-1:])
    calls = {
        "batch": lambda: F.batch_norm(tensor, None, None, w, training=True),
        "instance": lambda: F.instance_norm(tensor, weight=w),
        "group": lambda: F.group_norm(tensor, case.norm.num_groups, w),
        "layer": lambda: F.layer_norm(tensor, sizes, w),
        "rms": lambda: F.rms_norm(tensor, sizes, w, 1e-5),
        "channel": lambda: F.layer_norm(tensor, sizes, w),
    }
    y = calls[case.kind]()
    if last:
        y = y.movedim(1, -1)
    if first:
        y = y.movedim(-1, 1)
    return y.contiguous().numpy()


@pytest.mark.parametrize(("kind", "shape", "channels_last", "arguments"), CASES)
def test_a_set_is_what_one_element_moves(kind: str, shape: Any, channels_last: bool, arguments: Any) -> None:
    case = case_of(kind, shape, channels_last=channels_last, **arguments)
    x = np.random.default_rng(0).normal(size=shape)
    before = torchs(case, x)
    for place in np.ndindex(*shape):
        changed = x.copy()
        changed[place] += 1.0
        moved = ~np.isclose(torchs(case, changed), before, rtol=0, atol=1e-9)
        np.testing.assert_array_equal(moved, case.sets == case.sets[place])
    assert case.num_sets == len(np.unique(case.sets))
    assert {case.count} == set(np.unique(case.sets, return_counts=True)[1])


@pytest.mark.parametrize(("kind", "shape", "channels_last", "arguments"), CASES)
def test_a_weight_is_what_scales_its_cells(kind: str, shape: Any, channels_last: bool, arguments: Any) -> None:
    case = case_of(kind, shape, channels_last=channels_last, **arguments)
    x = np.random.default_rng(0).normal(size=shape)
    before = torchs(case, x, np.ones(case.weight_shape))
    for number in range(int(np.prod(case.weight_shape))):
        weight = np.ones(case.weight_shape)
        weight.reshape(-1)[number] = 2.0
        scaled = torchs(case, x, weight) != before
        np.testing.assert_array_equal(scaled, case.weights == number)


def test_the_view_is_that_of_the_memory() -> None:
    assert case_of("batch", (2, 3, 4, 5)).view.shape == (1, 2, 3, 20)
    assert case_of("batch", (2, 4, 5, 3), channels_last=True).view.shape == (1, 40, 3, 1)
    assert case_of("group", (2, 20, 6), channels_last=True).view.shape == (2, 20, 2, 3)


def test_the_marks_of_a_group_split_the_channels() -> None:
    marks = case_of("group", (2, 3, 6), num_groups=3, channels_last=True).marks
    assert [(mark.name, mark.size, mark.reduced, mark.affine) for mark in marks] == [
        ("N", 2, False, False),
        ("L", 3, True, False),
        ("G", 3, False, True),
        ("C/G", 2, True, True),
    ]


def test_layer_norm_averages_what_its_users_mean() -> None:
    assert case_of("layer", (2, 3, 4, 4)).reduced == ("C", "H", "W")
    assert case_of("layer", (2, 5, 8), channels_last=True).reduced == ("C",)
    assert case_of("rms", (8,)).reduced == ("C",)


@pytest.mark.parametrize(
    ("kind", "shape", "arguments", "message"),
    [
        ("bacth", (2, 3), {}, "unknown norm 'bacth': choose from batch"),
        ("batch", (2, 4), {"num_groups": 2}, "for group norm alone"),
        ("group", (2, 4), {"normalized_shape": (4,)}, "for layer and rms alone"),
        ("batch", (2, 0), {}, "sizes above 0"),
    ],
)
def test_what_cannot_be_is_refused(kind: str, shape: Any, arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        case_of(kind, shape, **arguments)
