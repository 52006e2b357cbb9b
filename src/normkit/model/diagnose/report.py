"""The result of a diagnosis, as records and as text."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from normkit.renderable import Renderable, unbroken

if TYPE_CHECKING:
    from rich.console import RenderableType


@dataclass(frozen=True)
class Finding:
    """A cause, why it is one, and what mends it.

    Args:
        code: Its name, as "stale-statistics".
        what: What is wrong.
        number: The number that shows it.
        layers: Names of the layers that it concerns, in the order in which they run.
        share: The share of the gap that it explains, by squares; None for a cause that makes no gap in these batches.
        call: The call of normkit that mends it; None where none does.
        advice: What else to do, or to do instead.
    """

    code: str
    what: str
    number: str
    layers: tuple[str, ...]
    share: float | None
    call: str | None
    advice: str


@dataclass(frozen=True)
class Curves:
    """What a layer's plots show: one value a channel, and two histograms.

    Args:
        running_mean, running_std: Of the running statistics.
        batch_mean, batch_std: Of all batches as one.
        edges: Of the bins.
        by_running, by_batch: The share of normalized values in each bin, before weight and bias.
    """

    running_mean: tuple[float, ...]
    running_std: tuple[float, ...]
    batch_mean: tuple[float, ...]
    batch_std: tuple[float, ...]
    edges: tuple[float, ...]
    by_running: tuple[float, ...]
    by_batch: tuple[float, ...]


@dataclass(frozen=True)
class Layer:
    """A layer that keeps running statistics, and what was measured of it.

    Args:
        name: Its name in the model.
        cls: Its class.
        kind: "batch" or "instance".
        channels: How many it has.
        uses: Calls in one forward pass of the model.
        samples: Samples behind a statistic.
        values: Values behind a statistic.
        mean_distance: Between running and batch mean, in standard deviations: root of the mean square over channels.
        log_var_ratio: Of the running variance to the batch's, each with eps: root of the mean square over channels.
        shift: How far values normalized by running statistics are from those by the statistics of all batches.
        noise: The same of the statistics of single batches: what to expect of chance, if batches are alike.
        use_distance: The same of the uses in one forward pass; 0 where there is one.
        between: Variance of batch means, in units of what chance would give (the F of an analysis of variance).
        momentum: The weight of a new batch, measured; None where the statistics fit so well that none can be.
        initial: Whether the running statistics are 0 and 1 exactly.
        nonfinite: Channels whose running mean or variance is NaN or infinite.
        nonfinite_batches: Batches in which NaN or infinity reached it.
        constant: Channels that never vary.
        dead: Channels that are constant, or whose weight is nearly zero.
        swallowed: The median share of eps in var + eps, of the larger of running and batch variance.
        padded: The share of positions that are padded.
        padding_distance: How far statistics with and without padded positions are apart, as ``shift``.
        cancelled_bias: The layer before it whose bias it cancels.
        recomputed: Whether it runs again during the backward pass.
        moves_in_evaluation: Whether its buffers change in evaluation.
        alone: How far the output moves if this layer alone normalizes by its batch.
        cumulative: The gap that is left if this layer and all before it do.
        curves: What its plots show.
    """

    name: str
    cls: str
    kind: str
    channels: int
    uses: int
    samples: int
    values: int
    mean_distance: float
    log_var_ratio: float
    shift: float
    noise: float
    use_distance: float
    between: float
    momentum: float | None
    initial: bool
    nonfinite: int
    nonfinite_batches: int
    constant: int
    dead: int
    swallowed: float
    padded: float
    padding_distance: float
    cancelled_bias: str | None
    recomputed: bool
    moves_in_evaluation: bool
    alone: float
    cumulative: float
    curves: Curves

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types, without what the plots show."""
        entries = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "curves"}
        return {name: _plain(value) for name, value in entries.items()}


@dataclass(frozen=True)
class Diagnosis(Renderable):
    """Why a model evaluates unlike it trains: causes, the one that explains most first. Print it.

    Args:
        gap: How far the outputs in evaluation form are from those in training form, in standard deviations of the
            outputs. Only the norms change form.
        noise: The gap that the statistics of all these batches leave: chance, as single batches differ.
        batches: How many batches were run.
        measured_at: The layer whose result was compared; None: the model's own outputs were.
        findings: The causes; empty for a healthy model.
        layers: Every layer that keeps running statistics and runs, in the order in which they run.
        unused: Names of those that do not run.
    """

    gap: float
    noise: float
    batches: int
    measured_at: str | None
    findings: tuple[Finding, ...]
    layers: tuple[Layer, ...]
    unused: tuple[str, ...]

    @property
    def healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types; what is not finite is null."""
        return {
            "healthy": self.healthy,
            "gap": _plain(self.gap),
            "noise": _plain(self.noise),
            "batches": self.batches,
            "measured_at": self.measured_at,
            "findings": [{**asdict(finding), "layers": list(finding.layers)} for finding in self.findings],
            "layers": [layer.to_dict() for layer in self.layers],
            "unused": list(self.unused),
        }

    def __str__(self) -> str:
        lines = [self.headline]
        for number, finding in enumerate(self.findings, 1):
            lines += ["", f"{number}. {heading(finding)}", *(f"   {line}" for line in details(finding))]
        return "\n".join(
            [*lines, "", *align([COLUMNS, *(row(layer) for layer in self.layers)])] if self.layers else lines
        )

    def __rich__(self) -> "RenderableType":
        from rich.console import Group
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = [unbroken(self.headline, "bold")]
        for number, finding in enumerate(self.findings, 1):
            parts += ["", Text(f"{number}. {heading(finding)}", style="bold")]
            parts += [Padding(Text(line), (0, 0, 0, 3)) for line in details(finding)]
        if self.layers:
            table = Table()
            for column, title in enumerate(COLUMNS):
                table.add_column(title, justify="left" if column == 0 else "right")
            for layer in self.layers:
                table.add_row(*map(Text, row(layer)))
            parts += ["", table]
        return Group(*parts)

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if not self.layers:
            return "diagnose: no layer that keeps running statistics runs, so no norm tells training from evaluation"
        size = f"gap {amount(self.gap)}, by the statistics of all batches {amount(self.noise)}"
        found = "healthy" if self.healthy else counted(len(self.findings), "cause")
        examined = f"{counted(len(self.layers), 'layer')}, {self.batches} batch{'es' if self.batches != 1 else ''}"
        return f"diagnose: {found} ({examined}; {size})"


COLUMNS = ("layer", "samples", "mean off", "log var ratio", "shift", "noise", "alone", "gap left")
"""Of the table of layers."""


def row(layer: Layer) -> tuple[str, ...]:
    """Return a layer's row of the table."""
    numbers = (layer.mean_distance, layer.log_var_ratio, layer.shift, layer.noise, layer.alone, layer.cumulative)
    return (layer.name or "(the model)", str(layer.samples), *(amount(value) for value in numbers))


def counted(count: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{count} {noun}{'s' if count != 1 else ''}"


def heading(finding: Finding) -> str:
    """Return a finding's code, and how much of the gap it explains."""
    return finding.code if finding.share is None else f"{finding.code}: explains {finding.share:.0%} of the gap"


def details(finding: Finding) -> list[str]:
    """Return what is to be said of a finding, a line each."""
    lines = [finding.what, f"where: {shorten(finding.layers)}", f"shown by: {finding.number}"]
    if finding.call:
        lines.append(f"call: {finding.call}")
    return [*lines, f"do: {finding.advice}"]


def shorten(names: Sequence[str]) -> str:
    """Return names with commas between them, the middle of many left out."""
    shown = [name or "(the model)" for name in names]
    return ", ".join(shown) if len(shown) <= 4 else f"{', '.join(shown[:3])} … {shown[-1]} ({len(shown)} layers)"


def amount(value: float) -> str:
    """Return a number with three digits."""
    if not math.isfinite(value):
        return "inf" if value > 0 else "nan"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.3g}"


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines of equal columns, the first to the left and all others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
