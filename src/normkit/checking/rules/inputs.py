"""Unusual inputs: one value a channel, no sample at all, strided memory, NaN."""

from collections.abc import Iterator
from typing import ClassVar

import numpy as np

from normkit.checking.measure.lab import Measurements
from normkit.checking.patterns import Values
from normkit.checking.report import Finding, number
from normkit.checking.rules.base import ANY_FAMILY, BASIC, Rule
from normkit.checking.target.arrays import Array
from normkit.checking.target.errors import TargetError
from normkit.checking.target.state import RUNNING


class SingleValue(Rule):
    """With one value a channel, training gives NaN or silent zeros instead of an error.

    Why: The variance of one value is zero and its unbiased estimate 0 / 0. torch raises an error; NaN in the running
    variance never leaves again, which is an error here; NaN or zeros in the output alone train nothing, a warning.

    Fix: Raise ValueError in training when batch times spatial size is 1.
    """

    code = "single-value"
    edge = True
    requires: ClassVar[tuple[str, ...]] = ("wrong-axes", "eps-missing in training")
    families: ClassVar[tuple[str, ...]] = ("batch", "instance")

    def not_applicable(self, probe: Measurements) -> str | None:
        return "what its further inputs add hides it" if probe.undoes else None

    def check(self, probe: Measurements) -> Iterator[Finding]:
        rank = min(probe.ranks)
        shape = list(probe.geometry.shape(rank, 1))
        for axis in range(1, rank):
            if axis != probe.geometry.channel_axis(rank):
                shape[axis] = 1
        layer = probe.layer(rank)
        try:
            y = probe.forward(layer, np.random.default_rng(1).normal(size=shape))
        except TargetError:
            return
        state = layer.read(*RUNNING)
        broken = [role for role, values in state.items() if not np.isfinite(values).all()]
        if not np.isfinite(y).all() or broken:
            where = " and ".join((["the output"] if not np.isfinite(y).all() else []) + broken)
            yield self.finding(
                f"one value a channel puts NaN or infinity in {where}",
                f"input of shape {tuple(shape)}",
                severity="error" if broken else "warning",
            )
        elif probe.convention_name == "torch":
            yield self.finding(
                "one value a channel is silently normalized to zero",
                f"input of shape {tuple(shape)}: largest output {number(float(np.abs(y).max()))}, no error",
                severity="warning",
            )


class EmptyBatch(Rule):
    """An empty batch fails, or ruins the running statistics.

    Why: The mean of nothing is NaN. A detector without a proposal or a filtered batch gives an empty one, and NaN in
    the running statistics stays forever.

    Fix: Return the empty output early, before the running statistics are touched.
    """

    code = "empty-batch"
    severity = "warning"
    edge = True
    requires: ClassVar[tuple[str, ...]] = ("wrong-axes",)
    after: ClassVar[tuple[str, ...]] = ("call-fails",)

    def check(self, probe: Measurements) -> Iterator[Finding]:
        shape = probe.geometry.shape(probe.rank, 0)
        layer = probe.train(steps=1)
        try:
            y = probe.forward(layer, np.zeros(shape))
        except TargetError as error:
            self.need("call-fails in training")  # where every later call fails, an empty batch does too
            yield self.finding("fails on an empty batch", str(error), severity="note")
            return
        state = layer.read(*RUNNING)
        broken = [role for role, values in state.items() if not np.isfinite(values).all()]
        if broken:
            yield self.finding(
                f"an empty batch puts NaN in {' and '.join(broken)}", f"input of shape {shape} in training"
            )
        elif y.shape != shape:
            yield self.finding(f"an empty batch gives shape {y.shape}", f"input of shape {shape}")


class NonContiguous(Rule):
    """A strided input fails or gives another result.

    Why: Transposed, sliced and expanded tensors are everywhere in models; ``view`` refuses them, and reading raw
    memory mixes them up.

    Fix: ``reshape`` instead of ``view``, or ``x.contiguous()`` first.
    """

    code = "non-contiguous"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    requires: ClassVar[tuple[str, ...]] = BASIC

    def not_applicable(self, probe: Measurements) -> str | None:
        return None if probe.library.mutable else "JAX arrays have no strides"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        values = probe.x()
        wanted = probe.forward(probe.layer(), values)
        for name, x in self._layouts(probe, values).items():
            trouble = _compare(probe, x, wanted)
            if trouble:
                yield self.finding(f"{trouble[0]} for {name} input", trouble[1])
                return

    def _layouts(self, probe: Measurements, values: Values) -> dict[str, Array]:
        last = values.ndim - 1
        flipped = probe.library.make(np.ascontiguousarray(np.moveaxis(values, last, 0)))
        wide = probe.library.make(np.repeat(values, 2, axis=last))
        transposed = probe.library.transpose(flipped, (*range(1, values.ndim), 0))
        return {"a transposed": transposed, "a sliced": wide[..., ::2]}


class ChannelsLastWrong(Rule):
    """An input in channels_last memory format fails or gives another result.

    Why: ``model.to(memory_format=torch.channels_last)`` is the usual way to speed up convolutions; the tensors have the
    same shape and other strides.

    Fix: Use axes, never memory order: no ``view``, ``data_ptr`` or ``as_strided`` on the input.
    """

    code = "channels-last-wrong"
    families: ClassVar[tuple[str, ...]] = ANY_FAMILY
    requires: ClassVar[tuple[str, ...]] = (*BASIC, "non-contiguous")

    def not_applicable(self, probe: Measurements) -> str | None:
        formats = probe.library.channels_last_ranks
        if not formats:
            return "a memory format of torch"
        return None if set(formats) & set(probe.ranks) else "it takes no input of rank 4 or 5"

    def check(self, probe: Measurements) -> Iterator[Finding]:
        for rank in (rank for rank in probe.ranks if rank in probe.library.channels_last_ranks):
            values = probe.x(rank)
            x = probe.library.to_channels_last(probe.library.make(values))
            trouble = _compare(probe, x, probe.forward(probe.layer(rank), values))
            if trouble:
                yield self.finding(
                    f"{trouble[0]} in channels_last memory format", f"input of rank {rank}: {trouble[1]}"
                )
                return


def _compare(probe: Measurements, x: Array, wanted: Values) -> tuple[str, str] | None:
    try:
        y = probe.undo(probe.library.values(probe.run(probe.layer(x.ndim), x)))
    except TargetError as error:
        return "fails", str(error)
    gap = float("inf")
    if y.shape == wanted.shape:
        both = np.isnan(y) & np.isnan(wanted)
        gap = float(np.abs(np.where(both, 0.0, y - wanted)).max())
    return ("gives another result", f"differs by {number(gap)} from the contiguous input") if not gap < 1e-3 else None


class NanSpreads(Rule):
    """A NaN in one channel or sample reaches others.

    Why: One broken image or one dead channel takes the whole batch with it, and the cause cannot be seen any more.

    Fix: Reduce along axes; a product with a mask or with an averaging matrix is not a selection, since 0 · NaN is NaN.
    """

    code = "nan-spreads"
    requires: ClassVar[tuple[str, ...]] = ("wrong-axes", "group-order", "formula-wrong in training")

    def check(self, probe: Measurements) -> Iterator[Finding]:
        pattern = probe.pattern()
        if pattern is None or pattern.statistics < 2:
            return
        x = probe.x()
        layer = probe.layer()
        x.reshape(-1)[0] = np.nan
        y = probe.forward(layer, x)
        others = pattern.labels != pattern.labels.reshape(-1)[0]
        lost = float(np.mean(np.isnan(y[others])))
        if lost > 0:
            yield self.finding(
                "a NaN spreads to statistics that it is not part of",
                f"one NaN in the input: {lost:.0%} of the outputs of other statistics are NaN",
            )
            return
        state = layer.read(*RUNNING)
        spread = [r for r, v in state.items() if v.size > 1 and np.isnan(v).mean() > 1 / v.size + 1e-9]
        if spread and probe.family == "batch":
            yield self.finding(f"a NaN in one channel spreads in {' and '.join(spread)}", "one NaN in the input")


RULES = (SingleValue, EmptyBatch, NonContiguous, ChannelsLastWrong, NanSpreads)
