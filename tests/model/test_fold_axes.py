"""Where an axis goes: an operation on scaled and shifted channels is the operation, scaled and shifted behind it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from normkit.model.fold.affine import Affine
from normkit.model.fold.axes import axis_after, axis_before


class Last(TorchDispatchMode):
    """Keeps the name and the arguments of the last operation."""

    name = ""
    arguments: tuple[Any, ...] = ()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.name, self.arguments = func.overloadpacket.__name__, args
        return func(*args, **(kwargs or {}))


# what is done to (2, 3, 4, 3), and where the channels of axis 1 are then
MOVES: dict[str, tuple[Callable[[Tensor], Tensor], int | None]] = {
    "flatten": (lambda x: x.flatten(2), 1),
    "split the batch": (lambda x: x.view(1, 2, 3, 12), 2),
    "join batch and channels": (lambda x: x.view(6, 4, 3), None),
    "join channels and rows": (lambda x: x.view(2, 12, 3), None),
    "same sizes elsewhere": (lambda x: x.view(2, 4, 3, 3), None),
    "unsqueeze": (lambda x: x.unsqueeze(1), 2),
    "squeeze": (lambda x: x[:, :, :1].squeeze(2), 1),
    "permute": (lambda x: x.permute(0, 2, 3, 1), 3),
    "transpose": (lambda x: x.transpose(1, -1), 3),
    "transpose others": (lambda x: x.transpose(0, 2), 1),
    "select before": (lambda x: x.select(0, 1), 0),
    "select behind": (lambda x: x.select(-1, 1), 1),
    "select a channel": (lambda x: x.select(1, 1), None),
    "slice": (lambda x: x[:, :, 1:], 1),
    "slice of channels": (lambda x: x[:, 1:], None),
    "index": (lambda x: x.index_select(2, torch.tensor([3, 0])), 1),
    "channels in another order": (lambda x: x.index_select(1, torch.tensor([2, 0, 1])), None),
    "flip of channels": (lambda x: x.flip(1), None),
    "expand": (lambda x: x.expand(5, 2, 3, 4, 3), 2),
    "mean": (lambda x: x.mean((0, 3)), 0),
    "mean, axes kept": (lambda x: x.mean((-1, -2), keepdim=True), 1),
    "mean of channels": (lambda x: x.mean(1), None),
    "mean of all": (lambda x: x.mean(), None),
    "pooling": (lambda x: F.adaptive_avg_pool2d(x, 2), 1),
    "clone": (lambda x: x.clone(), 1),
    "bits": (lambda x: x.view(torch.int64), None),
    "sum": (lambda x: x.sum(2), None),
    "square": (lambda x: x.square(), None),
}


@pytest.mark.parametrize(("move", "expected"), MOVES.values(), ids=MOVES)
def test_where_an_axis_goes_and_that_scale_and_shift_go_with_it(
    move: Callable[[Tensor], Tensor], expected: int | None
) -> None:
    x, scale, shift = (torch.randn(shape, dtype=torch.float64) for shape in ((2, 3, 4, 3), 3, 3))
    with Last() as last:
        y = move(x)
    before = x[:, :, :1].shape if last.name == "squeeze" else x.shape
    step = last.name, last.arguments, before, y.shape
    assert axis_after(*step, 1) == expected
    if expected is None:
        assert all(axis_before(*step, axis) != 1 for axis in range(y.dim()))
        return
    assert axis_before(*step, expected) == 1
    torch.testing.assert_close(move(Affine(scale, shift, 1).apply(x)), Affine(scale, shift, expected).apply(y))


def test_an_axis_of_size_one_that_could_be_several_is_none() -> None:
    assert axis_after("view", (None, [2, 1, 1, 4]), (2, 1, 4), (2, 1, 1, 4), 1) is None
