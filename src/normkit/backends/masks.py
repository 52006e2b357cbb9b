"""Which elements of an input count, and how much: masks, sample weights and lengths, read and checked."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.compiler import is_compiling

from normkit.backends.dtypes import compute_dtype
from normkit.backends.torch_internals import is_transforming
from normkit.spec import ShapeError


class Mask(NamedTuple):
    """What each position of an input counts; all channels of a position count alike.

    Args:
        valid: Whether a position counts at all: of shape (N, 1, *), bool. The others are padding.
        weights: How much: of the same shape, in the compute dtype, 0 at padding.
        weighted: Whether weights may hold other values than 0 and 1.
    """

    valid: Tensor
    weights: Tensor
    weighted: bool


class Sums(NamedTuple):
    """What a mask adds up to, in each sample: shape (N,), float64.

    Args:
        totals: The sum of weights.
        squares: The sum of their squares.
        counts: The number of valid positions.
    """

    totals: Tensor
    squares: Tensor
    counts: Tensor


def sums_of(mask: Mask) -> Sums:
    """Add up a mask."""
    weights = mask.weights.detach().flatten(1)
    totals = weights.sum(1, dtype=torch.float64)
    if not mask.weighted:
        return Sums(totals, totals, totals)
    return Sums(totals, weights.square().sum(1, dtype=torch.float64), mask.valid.flatten(1).sum(1, dtype=torch.float64))


def read_mask(x: Tensor, mask: Tensor | None, lengths: Tensor | Sequence[int] | None = None) -> Mask:
    """Return the mask of an input (N, C, *), given as a mask or as lengths.

    Args:
        x: The input.
        mask: Bool (True: it counts), or non-negative weights. Of shape (N, *), (N, 1, *) or (N, C, *) with equal
            channels; an axis behind the batch may be 1. (N,) counts whole samples.
        lengths: How many positions count of each sample of an input (N, C, L), from the first on.

    Raises:
        ValueError: negative or infinite weights, or NaN; lengths beyond L; both or neither of the two.
        RuntimeError: a shape that does not fit; channels with masks of their own.
        TypeError: a mask of complex numbers, lengths that are no integers, or what is no tensor.
    """
    if (mask is None) == (lengths is None):
        raise ValueError(f"expected `mask` or `lengths`; got {'neither' if mask is None else 'both'}")
    if not isinstance(x, Tensor):
        raise TypeError(f"a mask goes with a torch.Tensor; got {type(x).__name__}")
    if x.dim() < 2:
        raise ShapeError(f"a mask goes with an input of shape (N, C, *); got {tuple(x.shape)}")
    if mask is None:
        assert lengths is not None
        return _of_valid(x, _valid_of_lengths(x, lengths))
    if not isinstance(mask, Tensor):
        raise TypeError(f"expected `mask` to be a torch.Tensor; got {type(mask).__name__}")
    if mask.is_complex():
        raise TypeError(f"expected `mask` to be bool or real weights; got {mask.dtype}")
    if mask.device != x.device:
        raise RuntimeError(f"expected `mask` on {x.device}, where the input is; it is on {mask.device}: move it")
    mask = _one_channel(x, mask)
    if mask.dtype is torch.bool:
        return _of_valid(x, mask)
    weights = mask.to(compute_dtype(x.dtype))
    if can_be_inspected(x, weights) and not bool(((weights >= 0) & (weights < torch.inf)).all()):
        raise ValueError(
            "expected `mask` to be bool, or finite weights that are not negative; got negative, infinite or NaN ones"
        )
    return Mask(weights > 0, weights, weighted=True)


def can_be_inspected(*tensors: Tensor) -> bool:
    """Whether values may decide what is done: not in a compiled graph, under torch.func, or without memory."""
    return not (is_compiling() or is_transforming(*tensors) or any(tensor.is_meta for tensor in tensors))


def _of_valid(x: Tensor, valid: Tensor) -> Mask:
    return Mask(valid, valid.to(compute_dtype(x.dtype)), weighted=False)


def _valid_of_lengths(x: Tensor, given: Any) -> Tensor:
    """Return which positions of (N, C, L) lie within the lengths."""
    if x.dim() != 3:
        raise ShapeError(
            f"`lengths` go with an input of shape (N, C, L); got {tuple(x.shape)}: give `mask` for other shapes"
        )
    if isinstance(given, np.ma.MaskedArray):
        raise TypeError(
            "`lengths` are a numpy.ma.MaskedArray, and would lose their mask: fill them, with 0 for padding"
        )
    lengths: Tensor = torch.as_tensor(given, device=x.device)
    if lengths.is_floating_point() or lengths.is_complex() or lengths.dtype is torch.bool:
        raise TypeError(f"expected `lengths` to be integers; got {lengths.dtype}")
    if lengths.shape != x.shape[:1]:
        raise ShapeError(
            f"expected `lengths` of shape ({x.shape[0]},) for an input of shape {tuple(x.shape)}; "
            f"got {tuple(lengths.shape)}"
        )
    if can_be_inspected(x, lengths) and not bool(((lengths >= 0) & (lengths <= x.shape[2])).all()):
        raise ValueError(
            f"expected `lengths` from 0 to {x.shape[2]}, the length of the input; "
            f"got {int(lengths.min())} to {int(lengths.max())}"
        )
    positions = torch.arange(x.shape[2], device=x.device)
    return (positions < lengths[:, None])[:, None]  # (N, 1, L)


def _one_channel(x: Tensor, mask: Tensor) -> Tensor:
    """Return a mask of any accepted shape as (N, 1, *)."""
    shape, full = mask.shape, x.shape
    one = torch.Size((full[0], 1, *full[2:]))
    if len(shape) == 1:
        mask = mask.view(-1, *[1] * (len(full) - 1))
    elif len(shape) == len(full) - 1:
        mask = mask.unsqueeze(1)
    elif len(shape) == len(full) and shape[1] == full[1] > 1:
        mask = _agreed(mask)
    # the batch is not broadcast: a mask of another batch size is a mistake
    fits = mask.dim() == len(full) and mask.shape[:2] == one[:2]
    if not fits or any(got not in (1, size) for got, size in zip(mask.shape[2:], one[2:], strict=True)):
        without, single = (full[0], *full[2:]), tuple(one)
        raise ShapeError(
            f"expected `mask` of shape {without}, {single} or {tuple(full)} for an input of shape {tuple(full)}; "
            f"got {tuple(shape)}"
        )
    return mask.expand(one)


def _agreed(mask: Tensor) -> Tensor:
    """Return the first channel of a mask, if all are equal."""
    first = mask[:, :1]
    if not can_be_inspected(mask):
        raise ShapeError(
            "whether all channels of a mask agree cannot be seen in a compiled graph or under torch.func: "
            f"give one channel, mask[:, :1], instead of shape {tuple(mask.shape)}"
        )
    if not bool((mask == first).all()):
        raise ShapeError(
            f"expected `mask` to be the same for all channels; those of this one, of shape {tuple(mask.shape)}, "
            "differ: normalization shares positions among channels"
        )
    return first
