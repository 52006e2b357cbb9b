"""Which normalization of which axes: an array whose axes have names, as ``spec.py`` sees it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from normkit.choices import did_you_mean
from normkit.errors import UserError
from normkit.spec import Norm, View, view

KINDS: Final = ("batch", "layer", "group", "instance", "rms", "channel")
"""The norms that can be explained; "channel" is a layer norm over the channels of each position."""

DEFAULT_GROUPS: Final = 2
"""The fewest groups with which a group norm is not a layer norm."""

MAX_RANK: Final = 5
"""Axes that torch.nn's batch and instance norms take: (N, C, D, H, W)."""

Indices = NDArray[np.int64]

_SPATIAL: Final = {0: (), 1: ("L",), 2: ("H", "W"), 3: ("D", "H", "W")}


class Mark(NamedTuple):
    """One axis of an array, or a part of its channel axis, and what a norm does with it."""

    name: str
    size: int
    reduced: bool
    affine: bool


@dataclass(frozen=True)
class Case:
    """A normalization of one array.

    Args:
        norm: Which normalization.
        shape: The shape of the array.
        channels_last: Whether the channels are the last axis: (N, H, W, C) and not (N, C, H, W).
    """

    norm: Norm
    shape: tuple[int, ...]
    channels_last: bool = False

    @property
    def kind(self) -> str:
        """The norm's name in ``KINDS``."""
        return self.norm.name

    @cached_property
    def axes(self) -> tuple[str, ...]:
        """The names of the axes: N, C and the spatial ones."""
        return axis_names(len(self.shape), channels_last=self.channels_last)

    @cached_property
    def _order(self) -> tuple[int, ...]:
        """The axes of the array in the order in which the norm takes them; a layer norm takes them as they are."""
        rank = len(self.shape)
        if self.norm.kind == "layer" or not self.channels_last or rank < 3:
            return tuple(range(rank))
        return (0, rank - 1, *range(1, rank - 1))

    @cached_property
    def spec_shape(self) -> tuple[int, ...]:
        """The shape that the norm takes: (N, C, *), or for a layer norm the array's own."""
        return tuple(self.shape[axis] for axis in self._order)

    @cached_property
    def view(self) -> View:
        """The 4-D view of the array as it lies in memory, last axis fastest."""
        return view(self.norm, self.spec_shape, tuple(int(axis) for axis in np.argsort(self._order)))

    @cached_property
    def _spec_view(self) -> View:
        return view(self.norm, self.spec_shape)

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """What the norm does with each axis, in the array's order; a group's channel axis has two parts."""
        parts = self.norm.axes(self.spec_shape)
        marks: list[Mark] = []
        for axis, name in enumerate(self.axes):
            split = parts[self._order.index(axis)]
            names = (name,) if len(split) == 1 else ("G", f"{name}/G")
            marks += [Mark(part, *of_axis) for part, of_axis in zip(names, split, strict=True)]
        return tuple(marks)

    @property
    def reduced(self) -> tuple[str, ...]:
        """The names of the axes that mean and variance run over."""
        return tuple(mark.name for mark in self.marks if mark.reduced)

    @property
    def weighted(self) -> tuple[str, ...]:
        """The names of the axes that weight and bias vary along."""
        return tuple(mark.name for mark in self.marks if mark.affine)

    @property
    def num_sets(self) -> int:
        """How many means and variances there are."""
        return self._spec_view.shape[0] * self._spec_view.shape[2]

    @property
    def count(self) -> int:
        """How many values each mean averages."""
        return self._spec_view.count

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """The shape of weight and bias."""
        return self.norm.affine_shape(self.spec_shape)

    @cached_property
    def sets(self) -> Indices:
        """The number of the set of each cell: cells of one set share a mean and a variance. In the array's shape."""
        a, _, k, _ = self._spec_view.shape
        numbers = np.arange(a * k).reshape(a, 1, k, 1)
        return self.to_array(np.broadcast_to(numbers, self._spec_view.shape))

    @cached_property
    def weights(self) -> Indices:
        """The position of each cell's weight and bias, counted along their elements. In the array's shape."""
        v = self._spec_view
        numbers = np.arange(math.prod(v.affine_sizes)).reshape(v.affine_sizes)
        return self.to_array(np.broadcast_to(numbers, v.sizes))

    def to_spec(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the array with its axes as the norm takes them."""
        return array.transpose(self._order)

    def to_array(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values, one an element as the norm takes them, in the array's own shape."""
        return values.reshape(self.spec_shape).transpose(np.argsort(self._order))

    @property
    def layer(self) -> str:
        """The layer that does this: torch.nn's; LayerNorm2d is ours; a function where no layer takes so many axes."""
        if self.kind in ("batch", "instance") and len(self.shape) > MAX_RANK:
            return f"normkit.functional.{self.kind}_norm"
        channels = self.spec_shape[1] if len(self.spec_shape) > 1 else 0
        dimensions = max(1, len(self.shape) - 2)
        sizes = self.norm.normalized_shape
        named = {
            "batch": f"torch.nn.BatchNorm{dimensions}d({channels})",
            "instance": f"torch.nn.InstanceNorm{dimensions}d({channels}, affine=True)",
            "group": f"torch.nn.GroupNorm({self.norm.num_groups}, {channels})",
            "layer": f"torch.nn.LayerNorm({sizes[0] if len(sizes) == 1 else sizes})",
            "rms": f"torch.nn.RMSNorm({sizes[0] if len(sizes) == 1 else sizes})",
            "channel": f"normkit.LayerNorm2d({channels})",
        }
        return named[self.kind]


def case_of(
    kind: str,
    shape: Sequence[int],
    *,
    num_groups: int | None = None,
    normalized_shape: int | Sequence[int] | None = None,
    channels_last: bool = False,
) -> Case:
    """Return the case of a norm that is named.

    Args:
        kind: One of ``KINDS``.
        shape: The shape of the array.
        num_groups: Number of groups, for "group"; None: 2.
        normalized_shape: Sizes of the last axes, for "layer" and "rms". None: the last axis of a sequence with its
            channels last, as in a transformer; all axes but the first otherwise, as in the paper.
        channels_last: Whether the channels are the last axis.
    Raises:
        UserError: no such norm, or an argument that has no meaning for it.
    """
    if not isinstance(kind, str):
        raise UserError(f"expected the name of a norm ({', '.join(KINDS)}); got {type(kind).__name__}")
    if kind not in KINDS:
        raise UserError(f"unknown norm {kind!r}: choose from {', '.join(KINDS)}{did_you_mean(kind, KINDS)}")
    if kind != "group" and num_groups is not None:
        raise UserError(f"`num_groups={num_groups}` has a meaning for group norm alone, not for {kind}: drop it")
    if normalized_shape is not None and kind not in ("layer", "rms"):
        raise UserError(f"`normalized_shape` has a meaning for layer and rms alone, not for {kind}: drop it")
    shape = require_sizes(shape)
    if kind not in ("layer", "rms"):
        groups = DEFAULT_GROUPS if num_groups is None else num_groups
        return Case(Norm(kind, num_groups=groups if kind == "group" else 1), shape, channels_last)
    if normalized_shape is None:
        is_sequence = len(shape) == 3 and channels_last
        normalized_shape = shape[-1:] if is_sequence or len(shape) == 1 else shape[1:]
    sizes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    norm = Norm("layer", subtract_mean=kind == "layer", normalized_shape=sizes)
    return Case(norm, shape, channels_last)


def require_sizes(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape that has values.

    Raises:
        UserError: a size is 0 or less.
    """
    if any(size < 1 for size in shape):
        raise UserError(f"expected a `shape` of sizes above 0, as 2,4,2,2; got {','.join(map(str, shape))}")
    return tuple(int(size) for size in shape)


def axis_names(rank: int, *, channels_last: bool) -> tuple[str, ...]:
    """Return the names of the axes of an array: C alone, or N, C and the spatial axes."""
    if rank < 2:
        return ("C",)[:rank]
    spatial = _SPATIAL.get(rank - 2) or tuple(f"S{number}" for number in range(1, rank - 1))
    return ("N", *spatial, "C") if channels_last else ("N", "C", *spatial)
