"""The size of the input from which on a kernel of ours is faster than torch's own operation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from normkit.backends import use_backend
from normkit.backends.eligibility import Traits, min_numel
from normkit.bench.accuracy import spec
from normkit.bench.cases import EVALUATION, PASSES, NormCase, Row
from normkit.bench.contenders import OURS, build
from normkit.bench.environment import describe
from normkit.bench.measure import QUICK, Call, interleaved
from normkit.bench.progress import Progress
from normkit.bench.section import Section

SIZES: Final = tuple(2**power for power in range(13, 24, 2))


def _image(elements: int) -> tuple[int, ...]:
    """Return (N, C, H, W) with 4 samples and 16 channels."""
    height = 2 ** ((elements // 64).bit_length() // 2)
    return (4, 16, height, elements // 64 // height)


FAMILIES: Final[tuple[Callable[[int], NormCase], ...]] = (
    lambda elements: NormCase("BatchNorm1d", (elements // 64, 64)),
    lambda elements: NormCase("BatchNorm2d", _image(elements)),
    lambda elements: NormCase("BatchNorm2d", _image(elements), channels_last=True),
    lambda elements: NormCase("LayerNorm", (elements // 256, 256)),
    lambda elements: NormCase("RMSNorm", (elements // 256, 256)),
    lambda elements: NormCase("GroupNorm", _image(elements), groups=4),
    lambda elements: NormCase("GroupNorm", _image(elements), groups=4, channels_last=True),
    lambda elements: NormCase("InstanceNorm2d", _image(elements)),
    lambda elements: NormCase("InstanceNorm2d", _image(elements), channels_last=True),
    lambda elements: NormCase("LayerNorm2d", _image(elements)),
)


@dataclass(frozen=True)
class Line:
    """One norm and pass over all sizes: the time of torch's operation divided by the kernel's."""

    norm: str
    pass_: str
    ratios: dict[int, float]
    chosen: int
    """The size from which on a kernel is chosen."""

    @property
    def crossover(self) -> int | None:
        """The smallest size from which on the kernel is always faster; None: it is not at the largest."""
        return first_faster(list(self.ratios), list(self.ratios.values()))


@dataclass
class Crossover:
    """The sizes where kernels overtake, for each norm and pass."""

    lines: list[Line] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Time each norm and pass at every size."""
        progress.begin(len(FAMILIES) * len(PASSES))
        try:
            for family in FAMILIES:
                for pass_ in PASSES:
                    line = measure(family, pass_)
                    self.lines.append(line)
                    progress.step(f"{line.norm} {pass_}: from {line.crossover} elements on")
        finally:
            progress.end()

    def sections(self) -> list[Section]:
        """Return one table."""
        rows = tuple(
            (
                line.norm,
                line.pass_,
                *(f"{value:.2f}" for value in line.ratios.values()),
                "later" if line.crossover is None else f"{line.crossover:,}",
                f"{line.chosen:,}",
            )
            for line in self.lines
        )
        note = (
            "The time of torch's own operation divided by the kernel's, float32, by the number of elements of the "
            "input; both called through normkit. Inputs of fewer elements than the last column says go to torch's "
            "operation."
        )
        columns = ("norm", "pass", *(f"{size:,}" for size in SIZES), "faster from", "kernel from")
        return [Section("Where kernels overtake torch's own operations", columns, rows, (note,))]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON types."""
        return {
            "environment": self.environment,
            "crossover": [
                {
                    "norm": line.norm,
                    "measured": line.pass_,
                    "ratios": line.ratios,
                    "chosen": line.chosen,
                    "crossover": line.crossover,
                }
                for line in self.lines
            ],
        }


def measure(family: Callable[[int], NormCase], pass_: str) -> Line:
    """Time both at every size."""
    cases = {size: family(size) for size in SIZES}
    one = cases[SIZES[0]]
    running = one.norm.startswith("BatchNorm")
    statistics = running, not running or pass_ != EVALUATION
    chosen = min_numel(Traits(spec(one), torch.float32, len(one.shape), one.channels_last, one.shape[1], *statistics))
    name = one.norm + (" channels_last" if one.channels_last else "")
    return Line(name, pass_, {size: ratio(Row(case, pass_)) for size, case in cases.items()}, chosen)


def ratio(row: Row) -> float:
    """Return the time of torch's operation divided by the kernel's."""
    built = build(row)

    def forced(name: str) -> Call:
        call = built.calls[OURS]

        def run() -> object:
            with use_backend(name):
                return call()

        return run

    with torch.set_grad_enabled(built.with_grad):
        timings = interleaved({name: forced(name) for name in ("numba", "aten")}, QUICK)
    return timings["aten"].median / timings["numba"].median


def first_faster(sizes: Sequence[int], ratios: Sequence[float]) -> int | None:
    """Return the smallest size from which on every ratio is at least 1."""
    found = None
    for size, value in zip(reversed(sizes), reversed(ratios), strict=True):
        if value < 1.0:
            break
        found = size
    return found
