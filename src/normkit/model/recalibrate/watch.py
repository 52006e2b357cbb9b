"""What is measured of one layer: the moments of its inputs, by a hook that sees each of them first."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn

from normkit.backends.masks import read_mask
from normkit.model.norms import channel_axis, has_known_forward, running_stats
from normkit.model.preserve import set_mode
from normkit.model.recalibrate.moments import Statistics, Sums, batch_sums, instance_sums, merge, statistics
from normkit.model.recalibrate.proof import why_not


class Stop(BaseException):
    """Ends a forward pass; no model catches it by accident."""


class Report(NamedTuple):
    """What a rank has measured of a layer; see :class:`Watch`."""

    sums: Sums | None
    inputs: int
    skipped: int
    cut: int
    uses: int
    proven: bool
    reason: str | None


class Watch:
    """A layer whose inputs are measured.

    Args:
        name: Its name in the model.
        layer: The layer.
        kind: "instance", or "batch".
    """

    def __init__(self, name: str, layer: nn.Module, kind: str) -> None:
        self.name, self.layer, self.kind = name, layer, kind
        self.uses = 0  # the most in one forward pass
        self.reason: str | None = None  # why it cannot be measured
        self.proven = has_known_forward(layer)
        self.settled = True  # False: it depends on its own statistics, and they went on changing
        self._calls = 0  # in this forward pass
        self.forget()

    def forget(self) -> None:
        """Begin to measure anew."""
        self.sums: Sums | None = None
        self.inputs = self.skipped = self.cut = 0

    def begin_forward(self) -> None:
        """Note that a forward pass begins."""
        self._calls = 0

    def count_use(self) -> None:
        """Note that the layer is called."""
        self._calls += 1

    def end_forward(self) -> None:
        """Note that a forward pass has ended."""
        self.uses = max(self.uses, self._calls)

    def measure(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Sums | None:
        """Take up an input; return what it adds, or None if it is empty or refused."""
        if self.reason is not None:
            return None
        x = next((value for value in (*arguments, *keywords.values()) if isinstance(value, Tensor)), None)
        masks = {key: keywords[key] for key in ("mask", "lengths") if keywords.get(key) is not None}
        self.reason = self._unfit(x, masked=bool(masks))
        if x is None or self.reason is not None or not x.numel():
            return None
        batch = x if channel_axis(self.layer, x) == 1 else x[None]
        mask = read_mask(batch, masks.get("mask"), masks.get("lengths")) if masks else None
        found = (instance_sums if self.kind == "instance" else batch_sums)(batch, mask)
        if not found.elements:
            return None
        if not found.is_finite():
            self.skipped += 1
            return found
        if not self.proven and found.elements > 1:
            self.reason = why_not(self.layer, x, arguments, keywords)
            self.proven = self.reason is None
        if self.reason is None:
            self.sums = found if self.sums is None else merge([self.sums, found], self.kind)
            self.inputs += 1
        return found

    def report(self) -> Report:
        """Return what was measured, in the memory of the CPU."""
        sums = None if self.sums is None else self.sums.cpu()
        return Report(sums, self.inputs, self.skipped, self.cut, self.uses, self.proven, self.reason)

    def take(self, reports: Sequence[Report]) -> None:
        """Take what all ranks have measured for what was measured here."""
        self.sums = merge([report.sums for report in reports if report.sums is not None], self.kind)
        self.inputs, self.skipped, self.cut = (sum(counts) for counts in zip(*(r[1:4] for r in reports), strict=True))
        self.uses = max(report.uses for report in reports)
        self.proven = any(report.proven for report in reports)
        self.reason = next((report.reason for report in reports if report.reason is not None), None)

    def _unfit(self, x: Tensor | None, *, masked: bool) -> str | None:
        if x is None:
            return "it was called without a tensor"
        if masked and not has_known_forward(self.layer):
            return "it was called with a mask, and has a forward pass of its own"
        channels = running_stats(self.layer)["running_mean"].numel()
        axis = channel_axis(self.layer, x)
        if x.dim() <= axis or x.shape[axis] != channels:
            return f"its input of shape {tuple(x.shape)} has no {channels} channels on axis {axis}"
        if self.kind == "instance" and x[(0,) * (axis + 1)].numel() == 1:
            return f"its input of shape {tuple(x.shape)} has one value per channel and sample"
        return None

    def result(self) -> Statistics | str:
        """Return the statistics that were measured, or why there are none."""
        if self.reason is not None:
            return self.reason
        if not self.uses:
            return "no batch reached it"
        if self.sums is None:
            return "each of its inputs held NaN or infinity" if self.skipped else "its inputs were empty"
        if not self.proven:
            return "it has a forward pass of its own, and no input with more than one value per channel to try it on"
        if self.kind != "instance" and self.sums.elements <= 1:
            return "all data have one value per channel, which has no variance"
        found = statistics(self.sums, self.kind)
        dtype = running_stats(self.layer)["running_var"].dtype
        if not bool(torch.cat(found).to(dtype).isfinite().all()):
            return f"its statistics do not fit {dtype}: convert the layer with float()"
        return found


def watch_pooled(watch: Watch) -> Callable[..., None]:
    """Return a hook that measures the input of a layer in training mode."""

    def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        watch.count_use()
        found = watch.measure(arguments, keywords)
        if watch.reason is not None:
            set_mode(watch.layer, training=False)
        elif found is not None and found.elements == 1 and watch.kind != "instance" and not _is_shared(watch.layer):
            watch.cut += 1
            raise Stop  # one value per channel cannot be normalized by itself

    return hook


def _is_shared(layer: nn.Module) -> bool:
    """Whether other ranks add to the batch of a layer."""
    if not (hasattr(layer, "process_group") and distributed.is_available() and distributed.is_initialized()):
        return False
    return distributed.get_world_size(layer.process_group or distributed.group.WORLD) > 1  # type: ignore[arg-type]


def watch_alone(watch: Watch) -> Callable[..., None]:
    """Return a hook that measures the input of a layer, and ends a forward pass that comes to it once."""

    def hook(_: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        watch.count_use()
        watch.measure(arguments, keywords)
        if watch.uses == 1:
            raise Stop

    return hook
