r"""What each normalization reduces, and how any of them becomes one 4-D view. Read this file first.

Every normalization is one formula,

.. math:: y = (x - \mu) / \sqrt{\sigma^2 + \epsilon} \cdot \gamma + \beta

and a choice of axes. An axis carries two independent marks: is it **reduced** (do the mean and the variance run over
it), and is it **affine** (do weight and bias vary along it). A group splits the channel axis into two axes, (group,
channel in group), so it needs no formula of its own:

=============  ============  =====================  ==================  ====================
axis of x      batch         layer (last axes)      group               instance
=============  ============  =====================  ==================  ====================
N              reduced       kept                   kept                kept
C              kept, affine  kept, or reduced and   kept and reduced,   kept, affine
                             affine where in D      both affine
spatial        reduced       reduced, affine        reduced             reduced
=============  ============  =====================  ==================  ====================

Take the axes in **memory order** and merge neighbours whose reduced mark agrees; what is left is

    (A, R, K, S) = (kept outer, reduced rows, kept inner, reduced run),   statistics of shape (A, K)

so one implementation serves every norm in every memory layout. Weight and bias vary along parts of these four; because
the affine marks are merged along with the reduced ones, the offset of a weight is
``a % a_period * a_step + r * r_step + k * k_step + s // s_run * s_step`` (see :class:`View`).
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, wraps
from itertools import groupby
from typing import NamedTuple, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ShapeError(RuntimeError, ValueError):
    """A shape that does not fit. A RuntimeError as torch raises it, and the ValueError that a wrong argument is."""


def integer(value: object, expected: str) -> int:
    """Return a whole number of any type as an int, before a cache takes 2.0 or True for the int that it equals.

    Args:
        value: The number.
        expected: Who expected what: the begin of the message.
    Raises:
        TypeError: it is no integer; a bool is none either, as in torch.
    """
    if type(value) is int:
        return value
    try:
        if not isinstance(value, bool):
            return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        pass
    raise TypeError(f"{expected} to be an integer; got {value!r}")


def cached_by_shape(function: Callable[P, R]) -> Callable[P, R]:
    """Cache a function of shapes, except where a tracer has put symbols in place of sizes: they have no hash."""
    cached: Callable[P, R] = lru_cache(maxsize=4096)(function)  # type: ignore[assignment]

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return cached(*args, **kwargs)
        except TypeError:  # or the function's own, which it raises again
            return function(*args, **kwargs)

    return call


class Axis(NamedTuple):
    """One axis and its two marks."""

    size: int
    reduced: bool
    affine: bool


class Norm(NamedTuple):
    """Which normalization: its kind, and the numbers that fix its axes.

    Args:
        kind: "batch", "layer" (over the last axes), "channel" (over axis 1 alone: LayerNorm2d), "group", "instance".
        subtract_mean: False for RMSNorm: the mean is taken as zero and the variance is the mean of squares.
        num_groups: Number of groups, for "group".
        normalized_shape: Sizes of the last axes, for "layer".
    """

    kind: str
    subtract_mean: bool = True
    num_groups: int = 1
    normalized_shape: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The kind, or "rms" for a layer norm that subtracts no mean."""
        return "rms" if self.kind == "layer" and not self.subtract_mean else self.kind

    def axes(self, shape: Sequence[int]) -> tuple[tuple[Axis, ...], ...]:
        """The marks of every axis of an input; a group's channel axis has two parts.

        Raises:
            ShapeError: the shape does not fit this norm.
            TypeError: num_groups is no integer.
            ValueError: no such kind.
        """
        if self.kind == "layer":
            return self._layer_axes(tuple(shape))
        if len(shape) < 2:
            raise ShapeError(
                f"{self.kind} norm expects an input of shape (N, C, *), at least 2 axes; got shape {tuple(shape)}"
            )
        batch, channels, *spatial = shape
        if self.kind == "batch":
            over_batch, channel, over_space = True, [(channels, False)], True
        elif self.kind == "instance":
            over_batch, channel, over_space = False, [(channels, False)], True
        elif self.kind == "channel":
            over_batch, channel, over_space = False, [(channels, True)], False
        elif self.kind == "group":
            groups = integer(self.num_groups, "group norm expects num_groups")
            if groups < 1 or channels % groups:
                raise ShapeError(
                    "group norm expects the number of channels to be divisible by num_groups; "
                    f"got {channels} channels and num_groups={groups} for an input of shape {tuple(shape)}"
                )
            channel = [(groups, False), (channels // groups, True)]
            over_batch, over_space = False, True
        else:
            raise ValueError(f"expected a norm of kind batch, layer, channel, group or instance; got {self.kind!r}")
        return (
            (Axis(batch, over_batch, affine=False),),
            tuple(Axis(size, reduced, affine=True) for size, reduced in channel),
            *((Axis(size, over_space, affine=False),) for size in spatial),
        )

    def _layer_axes(self, shape: tuple[int, ...]) -> tuple[tuple[Axis, ...], ...]:
        depth = len(self.normalized_shape)
        if depth == 0:
            raise ShapeError("expected normalized_shape to name at least one axis; got an empty one")
        if shape[-depth:] != self.normalized_shape:
            raise ShapeError(
                f"Given normalized_shape={list(self.normalized_shape)}, expected input with shape "
                f"[*, {', '.join(map(str, self.normalized_shape))}]; got input of size {list(shape)}"
            )
        outer = len(shape) - depth
        return tuple((Axis(size, index >= outer, index >= outer),) for index, size in enumerate(shape))

    @property
    def writes_channels_last(self) -> bool:
        """Whether the result of four or five axes lies in channels-last memory, whatever the layout of the input."""
        return self.kind == "channel"

    @property
    def is_per_sample(self) -> bool:
        """Whether each sample has statistics of its own."""
        return self.kind != "batch"

    @property
    def affine_is_per_channel(self) -> bool:
        """Whether weight and bias have one value for each channel."""
        return self.kind != "layer"

    def affine_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape that weight and bias must have for an input of this shape."""
        return self.normalized_shape if self.kind == "layer" else (shape[1],)


@dataclass(frozen=True, eq=False)
class View:
    """One input seen as (A, R, K, S). :func:`view` returns the same object for the same question.

    ``x.transpose(order).reshape(sizes)`` has one axis for each run of equal marks, and ``.reshape(shape)`` of that is
    the 4-D view. Neither copies when ``order`` is the order of the axes in memory.

    Args:
        order: The axes of x, outermost in memory first.
        factors: What is left of the axes after merging neighbours with the same two marks.
        affine_order: The axes of weight in memory order (they differ from 0, 1, … only for a layer norm over
            several axes in a channels-last memory).
    """

    order: tuple[int, ...]
    factors: tuple[Axis, ...]
    affine_order: tuple[int, ...]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the factors."""
        return tuple(factor.size for factor in self.factors)

    @cached_property
    def reduced(self) -> tuple[int, ...]:
        """The reduced factors, as axes of ``sizes``."""
        return tuple(index for index, factor in enumerate(self.factors) if factor.reduced)

    @cached_property
    def affine_sizes(self) -> tuple[int, ...]:
        """The shape in which weight broadcasts against ``sizes``."""
        return tuple(factor.size if factor.affine else 1 for factor in self.factors)

    @cached_property
    def not_affine(self) -> tuple[int, ...]:
        """The factors that the gradients of weight and bias sum over, as axes of ``sizes``."""
        return tuple(index for index, factor in enumerate(self.factors) if not factor.affine)

    @cached_property
    def _slots(self) -> tuple[tuple[Axis, ...], ...]:
        """The factors that make up A, R, K and S."""
        slots: tuple[list[Axis], ...] = ([], [], [], [])
        slot = 0
        for factor in self.factors:
            while (slot % 2 == 1) != factor.reduced:
                slot += 1
            slots[slot].append(factor)
        if slot < 2:  # a single reduced run is contiguous: it is S, the fast one; what is outside its weights is R
            affine = [factor.affine for factor in slots[1]]
            outside = affine.index(True) if True in affine else 0
            slots = (slots[0], slots[1][:outside], [], slots[1][outside:])
        return tuple(map(tuple, slots))

    @cached_property
    def shape(self) -> tuple[int, int, int, int]:
        """(A, R, K, S)."""
        a, r, k, s = (math.prod(factor.size for factor in slot) for slot in self._slots)
        return a, r, k, s

    @property
    def count(self) -> int:
        """How many elements each mean averages: R · S."""
        return self.shape[1] * self.shape[3]

    @cached_property
    def affine_steps(self) -> tuple[int, int, int, int, int, int]:
        """(a_period, a_step, r_step, k_step, s_run, s_step) of the offset of a weight; a step of 0: no variation."""
        remaining = math.prod(self.affine_sizes)
        steps = []
        for slot in self._slots:
            period, step, run = 1, 0, 1
            for factor in slot:
                if factor.affine and factor.size:
                    remaining //= factor.size
                    period, step, run = factor.size, remaining, 1
                else:
                    run *= factor.size
            steps.append((period, step, max(run, 1)))
        (a_period, a_step, _), (_, r_step, _), (_, k_step, _), (_, s_step, s_run) = steps
        return a_period, a_step, r_step, k_step, s_run, s_step


@cached_by_shape
def view(norm: Norm, shape: tuple[int, ...], order: tuple[int, ...] | None = None) -> View:
    """See an input of this shape, whose axes lie in memory in this order (row-major if None), as (A, R, K, S).

    Raises:
        ShapeError: the shape does not fit the norm, or more axes alternate in this order than four can hold
            (permute the input first).
    """
    axes = norm.axes(shape)
    order = tuple(range(len(shape))) if order is None else order
    factors: list[Axis] = []
    for axis in (part for index in order for part in axes[index]):
        if axis.size == 1:
            continue
        if factors and factors[-1][1:] == axis[1:]:
            factors[-1] = Axis(factors[-1].size * axis.size, axis.reduced, axis.affine)
        else:
            factors.append(axis)
    runs = [reduced for reduced, _ in groupby(factors, key=lambda factor: factor.reduced)]
    if len(runs) + runs[:1].count(True) > 4:
        raise ShapeError(f"axes in memory order {order} alternate too often between kept and reduced; permute first")
    affine = [index for index in order if any(part.affine for part in axes[index])]
    ranks = sorted(affine)
    return View(order, tuple(factors), tuple(ranks.index(index) for index in affine))
