"""Operations that move an axis and let what is multiplied and added along it pass: views, slices, means of other axes.

If ``y = op(x)`` is one of them and the axis a of x becomes the axis b of y, then ``op(x * scale + shift)``, with one
scale and shift for each place on a, is ``y * scale + shift`` along b.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Final

__all__ = ["Rule", "axis_after", "axis_before"]

Shape = Sequence[int]

Rule = Callable[[str, Sequence[Any], Shape, Shape, int], int | None]
"""What :func:`axis_after` and :func:`axis_before` are."""


def axis_after(operation: str, arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    """Return where an axis is behind an operation; None if the operation is none of those, or changes it.

    Args:
        operation: The name of the ATen operation.
        arguments: What it was called with, the tensor first.
        before: The shape of that tensor.
        after: The shape of the result.
        axis: The axis, counted from the front.
    """
    rule = _RULES.get(operation)
    moved = None if rule is None else rule(arguments[1:], before, after, axis)
    return moved if moved is not None and 0 <= moved < len(after) and after[moved] == before[axis] else None


def axis_before(operation: str, arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    """Return where an axis of the result was before the operation; the arguments are those of :func:`axis_after`."""
    found = [one for one in range(len(before)) if axis_after(operation, arguments, before, after, one) == axis]
    return found[0] if len(found) == 1 else None


def _stays(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    return axis


def _reshaped(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    """An axis survives a reshape if as many elements lie before it as did, and it has the same size."""
    if arguments and not isinstance(arguments[0], int | Sequence):
        return None  # view(dtype) reads the bits as other numbers
    found = [
        one
        for one, size in enumerate(after)
        if size == before[axis] and prod(after[:one]) == prod(before[:axis]) and prod(after) == prod(before)
    ]
    return found[0] if len(found) == 1 else None


def _permuted(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    order: list[int] = [place % len(before) for place in arguments[0]]
    return order.index(axis)


def _transposed(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    one, other = (int(place) % len(before) for place in arguments[:2])
    return {one: other, other: one}.get(axis, axis)


def _first_axes_swapped(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    return 1 - axis if len(before) == 2 else None


def _selected(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    gone = arguments[0] % len(before)
    return None if axis == gone else axis - (axis > gone)


def _sliced(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    along = arguments[0] % len(before) if arguments else 0
    return None if axis == along else axis


def _expanded(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    return axis + len(after) - len(before)


def _averaged(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    if not arguments or not arguments[0]:
        return None
    gone = {place % len(before) for place in arguments[0]}
    if axis in gone:
        return None
    return axis if len(after) == len(before) else axis - sum(place < axis for place in gone)


def _pooled(arguments: Sequence[Any], before: Shape, after: Shape, axis: int) -> int | None:
    """Adaptive pooling averages over rows and columns, the last two axes."""
    return axis if axis < len(before) - 2 else None


_RULES: Final[dict[str, Callable[[Sequence[Any], Shape, Shape, int], int | None]]] = {
    **dict.fromkeys(("alias", "clone", "contiguous"), _stays),
    **dict.fromkeys(("view", "_unsafe_view", "_reshape_alias", "squeeze", "unsqueeze"), _reshaped),
    "permute": _permuted,
    "transpose": _transposed,
    "t": _first_axes_swapped,
    "select": _selected,
    **dict.fromkeys(("slice", "index_select"), _sliced),
    "expand": _expanded,
    "mean": _averaged,
    "_adaptive_avg_pool2d": _pooled,
}
