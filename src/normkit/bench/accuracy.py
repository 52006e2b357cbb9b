"""The error against the float64 reference, as the mean grows beyond the standard deviation."""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from normkit import reference
from normkit.backends import use_backend
from normkit.bench.cases import NormCase
from normkit.bench.contenders import LABELS, OURS, TORCH, layer
from normkit.bench.environment import describe
from normkit.bench.progress import Progress
from normkit.bench.section import Section, reached
from normkit.spec import Norm, view

ONE_PASS: Final = "one pass"
CONTENDERS: Final = (OURS, TORCH, ONE_PASS)
EXPONENTS: Final = range(8)
SEEDS: Final = 3
TARGET: Final = 4.0
TARGET_LIMIT: Final = 1e4
"""The largest mean/std at which the error should be at most TARGET."""

CASES: Final = (
    NormCase("BatchNorm2d", (16, 32, 28, 28), affine=False),
    NormCase("BatchNorm2d", (16, 32, 28, 28), affine=False, channels_last=True),
    NormCase("LayerNorm", (512, 768), affine=False),
    NormCase("GroupNorm", (8, 64, 28, 28), affine=False, groups=8),
    NormCase("InstanceNorm2d", (8, 64, 28, 28), affine=False),
    NormCase("LayerNorm2d", (8, 96, 28, 28), affine=False),
)
"""Without weight and bias: the error is that of the normalization alone. RMSNorm subtracts no mean."""


@dataclass(frozen=True)
class Point:
    """The largest error of each contender, in units in the last place of the output's largest element."""

    case: str
    ratio: float
    errors: dict[str, float]


@dataclass
class Accuracy:
    """Errors of our layers, of torch.nn's, and of the one-pass formula."""

    points: list[Point] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Measure every case at every mean/std."""
        progress.begin(len(CASES) * len(EXPONENTS))
        try:
            for case in CASES:
                for exponent in EXPONENTS:
                    point = Point(case.name, 10.0**exponent, errors(case, 10.0**exponent))
                    self.points.append(point)
                    progress.step(f"{case.name}, mean/std {point.ratio:g}: {point.errors[OURS]:.2g} units")
        finally:
            progress.end()

    def sections(self) -> list[Section]:
        """Return one table: a row for each case and contender, a column for each mean/std."""
        found = {(point.case, point.ratio): point.errors for point in self.points}
        rows = [
            (
                case.name,
                LABELS.get(contender, contender),
                *(_text(found.get((case.name, 10.0**exponent), {}).get(contender)) for exponent in EXPONENTS),
            )
            for case in CASES
            for contender in CONTENDERS
        ]
        judged = [point.errors[OURS] for point in self.points if point.ratio <= TARGET_LIMIT]
        notes = [
            "Units in the last place of float32, at the scale of the largest output: "
            f"max |y - reference| / (2⁻²³ · max |reference|), the largest of {SEEDS} draws. The reference is computed "
            "in float64 from the same float32 input. Ours are the kernels; inputs that are handed to torch get torch's "
            "error. One pass is the variance as E[x²] - E[x]², in float32."
        ]
        if judged:
            verdict = reached(max(judged) <= TARGET)
            notes.append(
                f"Ours up to mean/std {TARGET_LIMIT:g}: at most {max(judged):.2g} (target {TARGET:g}: {verdict})."
            )
        columns = ("case", "", *(f"{10.0**e:.0e}".replace("e+0", "e") for e in EXPONENTS))
        return [Section("Error by mean/std", columns, tuple(rows), tuple(notes))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {"environment": self.environment, "accuracy": [asdict(point) for point in self.points]}

    def draw(self, path: Path) -> None:
        """Draw error against mean/std, a panel for each case."""
        from matplotlib.figure import Figure

        from normkit.bench.picture import COLOURS, DPI

        figure = Figure(figsize=(11, 6.6), layout="constrained")
        figure.suptitle("Largest error of the output, float32, against float64")
        grid = figure.subplots(2, math.ceil(len(CASES) / 2), sharex=True, sharey=True)
        for axes, case in zip(grid.flat, CASES, strict=True):
            points = [point for point in self.points if point.case == case.name]
            for contender in CONTENDERS:
                axes.plot(
                    [point.ratio for point in points],
                    [point.errors[contender] for point in points],
                    label=LABELS.get(contender, contender),
                    color=COLOURS.get(contender, "#555555"),
                    marker="o",
                    markersize=3.5,
                )
            axes.plot(
                [1, TARGET_LIMIT],
                [TARGET, TARGET],
                color="black",
                linestyle="--",
                linewidth=1,
                label=f"target: {TARGET:g}",
            )
            axes.axhline(
                1 / torch.finfo(torch.float32).eps, color="#999999", linewidth=1, label="as large as the output"
            )
            axes.set(xscale="log", yscale="log")
            axes.set_title(case.name.replace(" without affine float32", ""), fontsize=10)
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel("mean / standard deviation of the input")
        figure.supylabel("units in the last place", fontsize=10)
        handles, labels = grid.flat[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(handles), frameon=False)
        figure.savefig(path, dpi=DPI)


def errors(case: NormCase, ratio: float) -> dict[str, float]:
    """Return the largest error of each contender for inputs of this mean/std."""
    worst = dict.fromkeys(CONTENDERS, 0.0)
    for seed in range(SEEDS):
        x = torch.randn(case.shape, generator=torch.Generator().manual_seed(seed)) + ratio
        expected = reference.normalize(x.numpy(), spec(case)).y
        with use_backend("numba"):
            results = list(_results(case, x))
        for contender, y in results:
            difference = np.abs(y.numpy().astype(np.float64) - expected).max() / np.abs(expected).max()
            worst[contender] = max(worst[contender], float(difference) / torch.finfo(torch.float32).eps)
    return worst


def spec(case: NormCase) -> Norm:
    """Return the specification of a case's layer."""
    if case.norm in ("LayerNorm", "RMSNorm"):
        return Norm("layer", subtract_mean=case.norm == "LayerNorm", normalized_shape=case.shape[-case.axes :])
    if case.norm == "GroupNorm":
        return Norm("group", num_groups=case.groups)
    return Norm("channel" if case.norm == "LayerNorm2d" else case.norm.rstrip("123d").removesuffix("Norm").lower())


def one_pass(x: Tensor, norm: Norm, eps: float = 1e-5) -> Tensor:
    """Normalize by the formula that reads its input once: the variance as E[x²] - E[x]²."""
    x4 = x.reshape(view(norm, tuple(x.shape)).shape)
    mean = x4.mean((1, 3), keepdim=True)
    var = (x4 * x4).mean((1, 3), keepdim=True) - mean * mean
    return ((x4 - mean) * torch.rsqrt(var.clamp(min=0.0) + eps)).reshape(x.shape)


def _results(case: NormCase, x: Tensor) -> Iterator[tuple[str, Tensor]]:
    with torch.no_grad():
        yield ONE_PASS, one_pass(x, spec(case))
        x = x.contiguous(memory_format=torch.channels_last) if case.channels_last else x
        for contender in (OURS, TORCH):
            yield contender, layer(case, contender).train()(x)


def _text(error: float | None) -> str:
    return "" if error is None else f"{error:.2g}" if error < 1000 else f"{error:.0e}".replace("e+0", "e")
