"""From which size on a kernel of ours is faster than torch's own operation."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import torch

import normkit
from normkit.backends.eligibility import Traits, min_numel
from normkit.bench.accuracy import spec
from normkit.bench.cases import EVALUATION, PASSES, NormCase, Row
from normkit.bench.contenders import OURS, build
from normkit.bench.environment import describe
from normkit.bench.measure import QUICK, Call, interleaved
from normkit.bench.progress import Progress
from normkit.bench.section import Section

SIZES: Final = tuple(2**power for power in range(13, 24, 2))


def _image(numbers: int) -> tuple[int, ...]:
    """(N, C, H, W) of 4 samples and 16 channels."""
    height = 2 ** ((numbers // 64).bit_length() // 2)
    return (4, 16, height, numbers // 64 // height)


FAMILIES: Final[tuple[Callable[[int], NormCase], ...]] = (
    lambda numbers: NormCase("BatchNorm1d", (numbers // 64, 64)),
    lambda numbers: NormCase("BatchNorm2d", _image(numbers)),
    lambda numbers: NormCase("BatchNorm2d", _image(numbers), channels_last=True),
    lambda numbers: NormCase("LayerNorm", (numbers // 256, 256)),
    lambda numbers: NormCase("RMSNorm", (numbers // 256, 256)),
    lambda numbers: NormCase("GroupNorm", _image(numbers), groups=4),
    lambda numbers: NormCase("GroupNorm", _image(numbers), groups=4, channels_last=True),
    lambda numbers: NormCase("InstanceNorm2d", _image(numbers)),
    lambda numbers: NormCase("InstanceNorm2d", _image(numbers), channels_last=True),
    lambda numbers: NormCase("LayerNorm2d", _image(numbers)),
)


@dataclass(frozen=True)
class Line:
    """One norm and pass over all sizes: the time of torch's operation divided by the kernel's."""

    norm: str
    measured: str
    ratios: dict[int, float]
    chosen: int  # the size from which on a kernel takes it

    @property
    def crossover(self) -> int | None:
        """The smallest size from which on the kernel is always faster; None: it is not at the largest."""
        return crossover(list(self.ratios), list(self.ratios.values()))


@dataclass
class Crossover:
    """Where kernels overtake, for each norm and pass."""

    lines: list[Line] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=describe)

    def run(self, progress: Progress) -> None:
        """Time both at every size."""
        progress.begin(len(FAMILIES) * len(PASSES))
        try:
            for family in FAMILIES:
                for measured in PASSES:
                    cases = {numbers: family(numbers) for numbers in SIZES}
                    one = cases[SIZES[0]]
                    name = one.norm + (" channels_last" if one.channels_last else "")
                    norm = spec(one)
                    running = norm.kind == "batch"
                    statistics = running, not running or measured != EVALUATION
                    traits = Traits(norm, torch.float32, len(one.shape), one.channels_last, one.shape[1], *statistics)
                    limit = min_numel(traits)
                    ratios = {size: ratio(Row(case, measured)) for size, case in cases.items()}
                    line = Line(name, measured, ratios, limit)
                    self.lines.append(line)
                    progress.step(f"{name} {measured}: from {line.crossover} numbers on")
        finally:
            progress.end()

    def sections(self) -> list[Section]:
        """One table."""
        rows = tuple(
            (
                line.norm,
                line.measured,
                *(f"{value:.2f}" for value in line.ratios.values()),
                "later" if line.crossover is None else f"{line.crossover:,}",
                f"{line.chosen:,}",
            )
            for line in self.lines
        )
        note = (
            "The time of torch's own operation divided by the kernel's, float32, by how many numbers the input has; "
            "both called through normkit. Inputs of fewer numbers than the last column says go to torch's operation."
        )
        columns = ("norm", "pass", *(f"{size:,}" for size in SIZES), "faster from", "kernel from")
        return [Section("Where kernels overtake torch's own operations", columns, rows, (note,))]

    def to_json(self) -> dict[str, Any]:
        """All of it in plain types."""
        return {
            "environment": self.environment,
            "crossover": [{**asdict(line), "crossover": line.crossover} for line in self.lines],
        }


def ratio(row: Row) -> float:
    """The time of torch's operation divided by the kernel's."""
    built = build(row)

    def forced(name: str) -> Call:
        call = built.calls[OURS]

        def run() -> object:
            with normkit.use_backend(name):
                return call()

        return run

    with torch.set_grad_enabled(built.with_grad):
        timings = interleaved({name: forced(name) for name in ("numba", "aten")}, QUICK)
    return timings["aten"].median / timings["numba"].median


def crossover(sizes: Sequence[int], ratios: Sequence[float]) -> int | None:
    """The smallest size from which on every ratio is at least 1."""
    found = None
    for size, value in zip(reversed(sizes), reversed(ratios), strict=True):
        if value < 1.0:
            break
        found = size
    return found
