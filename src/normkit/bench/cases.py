"""The table: every case that is timed, and the bar that it should reach.

A bar is torch.nn's time divided by ours, with two threads. Higher is better, and 1.0 means as fast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from normkit.errors import UserError

FORWARD: Final = "forward"
EVALUATION: Final = "evaluation"
BOTH: Final = "forward+backward"
STEP: Final = "training step"
PASSES: Final = (FORWARD, EVALUATION, BOTH)

DEFAULT: Final = "default"
KEPT: Final = "kept"

THREADS_OF_BARS: Final = 2
OTHER: Final = 0.9
"""The bar of every case without one of its own: no slower than torch.nn, up to the noise of a measurement."""
LARGE_BYTES: Final = 64_000_000
LARGE_IN_DEFAULT: Final = 2.0
"""The bar of inputs over LARGE_BYTES in a default process, where fresh memory is most of what they cost."""

ITEM_BYTES: Final = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class NormCase:
    """One layer and one input.

    Args:
        norm: The layer's class, the same name in torch.nn and in normkit (torch.nn's LayerNorm2d and BatchNormAct2d
            are several layers).
        shape: Of the input.
        bars: For forward and for forward+backward.
        channels_last: The channels are innermost in memory (three axes: a transposed N L C).
        dtype: Of the input, and of the parameters unless ``mixed``.
        mixed: The parameters are float32.
        groups: For GroupNorm.
        affine: Whether there are weight and bias; None: the class's own default.
        axes: How many last axes LayerNorm and RMSNorm normalize over.
        headline: It has a row in the table of bars.
        smallest: It is part of a quick run for its size.
    """

    norm: str
    shape: tuple[int, ...]
    bars: tuple[float, float] = (OTHER, OTHER)
    channels_last: bool = False
    dtype: str = "float32"
    mixed: bool = False
    groups: int = 1
    affine: bool | None = None
    axes: int = 1
    headline: bool = False
    smallest: bool = False

    @property
    def quick(self) -> bool:
        """Whether it is part of a quick run."""
        return self.smallest or (self.headline and self.nbytes <= LARGE_BYTES)

    @property
    def name(self) -> str:
        """What it is, in one line; unique."""
        words = [self.norm, f"({','.join(map(str, self.shape))})"]
        if self.norm == "GroupNorm":
            words.append(f"{self.groups} groups")
        if self.norm in ("LayerNorm", "RMSNorm") and self.axes > 1:
            words.append(f"over {self.axes} axes")
        if self.channels_last:
            words.append("channels_last")
        if self.affine is not None:
            words.append("affine" if self.affine else "without affine")
        words.append(self.dtype)
        if self.mixed:
            words.append("with float32 parameters")
        return " ".join(words)

    @property
    def nbytes(self) -> int:
        """The bytes of the input."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]

    @property
    def passes(self) -> tuple[str, ...]:
        """What is timed of it."""
        return PASSES

    def bar(self, measured: str, regime: str) -> float:
        """What torch.nn's time divided by ours should reach."""
        if measured == EVALUATION:
            return OTHER
        if regime == DEFAULT:
            return LARGE_IN_DEFAULT if self.nbytes > LARGE_BYTES else OTHER
        return self.bars[measured == BOTH]


@dataclass(frozen=True)
class ModelCase:
    """A whole training step of a small network: forward, loss, backward, optimizer.

    Args:
        model: Its name in :mod:`normkit.bench.models`.
        bars: With memory kept, and in a default process.
        channels_last: Model and input are in that memory format.
        fused: Our batch norms with an activation behind them are a BatchNormAct2d.
    """

    model: str
    bars: tuple[float, float] = (1.0, 1.0)
    channels_last: bool = False
    fused: bool = False
    headline: bool = True
    quick: bool = False

    @property
    def name(self) -> str:
        """What it is, in one line; unique."""
        fused = " with BatchNormAct2d" if self.fused else ""
        return self.model + fused + (" channels_last" if self.channels_last else "")

    @property
    def passes(self) -> tuple[str, ...]:
        """What is timed of it."""
        return (STEP,)

    def bar(self, measured: str, regime: str) -> float:
        """What torch.nn's time divided by ours should reach."""
        return self.bars[regime == DEFAULT]


@dataclass(frozen=True)
class Row:
    """One thing to time."""

    case: NormCase | ModelCase
    measured: str

    @property
    def name(self) -> str:
        """What it is, in one line; unique."""
        return f"{self.case.name} {self.measured}"

    def matches(self, words: Sequence[str]) -> bool:
        """Whether its name holds every word, in any case."""
        name = self.name.lower()
        return all(word.lower() in name for word in words)


def _bar(norm: str, shape: tuple[int, ...], forward: float, both: float, **more: object) -> NormCase:
    return NormCase(norm, shape, (forward, both), headline=True, **more)  # type: ignore[arg-type]


HEADLINES: Final = (
    _bar("BatchNorm2d", (32, 64, 56, 56), 3.3, 2.5),
    _bar("BatchNorm2d", (32, 64, 56, 56), 1.0, 1.0, channels_last=True),
    _bar("BatchNorm2d", (32, 256, 14, 14), 6.0, 5.0),
    _bar("BatchNorm2d", (32, 256, 14, 14), 2.0, 2.2, channels_last=True),
    _bar("BatchNorm2d", (64, 64, 112, 112), 4.0, 3.0),
    _bar("BatchNorm3d", (4, 32, 16, 28, 28), 4.0, 3.5),
    _bar("BatchNorm1d", (4096, 1024), 1.0, 1.2),
    _bar("BatchNorm1d", (64, 128, 500), 3.0, 2.5),
    _bar("LayerNorm", (8192, 768), 0.95, 1.0),
    _bar("LayerNorm", (4096, 1024), 2.0, 3.0, dtype="bfloat16"),
    _bar("RMSNorm", (8192, 768), 2.0, 4.5),
    _bar("RMSNorm", (8192, 4096), 6.0, 8.0, dtype="bfloat16"),
    _bar("GroupNorm", (8, 320, 64, 64), 0.95, 1.15, groups=32),
    _bar("GroupNorm", (8, 320, 64, 64), 0.95, 1.2, groups=32, channels_last=True),
    _bar("InstanceNorm2d", (8, 320, 64, 64), 3.5, 2.0),
    _bar("InstanceNorm2d", (8, 320, 64, 64), 4.0, 4.0, channels_last=True),
    _bar("LayerNorm2d", (32, 96, 56, 56), 1.9, 2.8),
    _bar("BatchNorm2d", (32, 64, 56, 56), 1.8, 2.0, dtype="bfloat16"),
)

SMALLEST: Final = (
    NormCase("BatchNorm1d", (8, 64), smallest=True),
    NormCase("BatchNorm2d", (1, 16, 4, 4), smallest=True),
    NormCase("LayerNorm", (1, 768), smallest=True),
    NormCase("RMSNorm", (1, 768), smallest=True),
    NormCase("GroupNorm", (1, 16, 4, 4), groups=4, smallest=True),
    NormCase("InstanceNorm2d", (1, 16, 4, 4), smallest=True),
    NormCase("LayerNorm2d", (1, 16, 4, 4), smallest=True),
    NormCase("BatchNorm2d", (1, 16, 4, 4), channels_last=True),
    NormCase("BatchNormAct2d", (1, 16, 4, 4)),
    NormCase("LayerNorm", (8, 64)),
    NormCase("RMSNorm", (8, 64)),
    NormCase("LayerNorm", (1, 768), dtype="bfloat16"),
    NormCase("BatchNorm1d", (8, 64), dtype="float64"),
)

ODD: Final = (
    NormCase("BatchNorm2d", (7, 13, 17, 19)),
    NormCase("BatchNorm2d", (7, 13, 17, 19), channels_last=True),
    NormCase("BatchNorm1d", (33, 777)),
    NormCase("BatchNorm1d", (5, 31, 97)),
    NormCase("BatchNorm3d", (2, 5, 13, 17, 9)),
    NormCase("LayerNorm", (129, 513)),
    NormCase("LayerNorm", (19, 3, 17, 31), axes=3),
    NormCase("RMSNorm", (129, 513)),
    NormCase("GroupNorm", (3, 21, 13, 17), groups=7),
    NormCase("GroupNorm", (3, 21, 13, 17), groups=7, channels_last=True),
    NormCase("InstanceNorm2d", (3, 21, 13, 17)),
    NormCase("InstanceNorm2d", (3, 21, 13, 17), channels_last=True),
    NormCase("LayerNorm2d", (3, 21, 13, 17)),
)

USUAL: Final = (
    NormCase("BatchNorm2d", (128, 16, 32, 32)),
    NormCase("BatchNorm2d", (16, 512, 7, 7)),
    NormCase("BatchNorm2d", (16, 512, 7, 7), channels_last=True),
    NormCase("BatchNorm2d", (32, 64, 56, 56), affine=False),
    NormCase("BatchNormAct2d", (32, 64, 56, 56)),
    NormCase("BatchNormAct2d", (32, 64, 56, 56), channels_last=True),
    NormCase("BatchNormAct2d", (16, 144, 16, 16)),
    NormCase("BatchNormAct2d", (16, 144, 16, 16), channels_last=True),
    NormCase("BatchNorm1d", (256, 512)),
    NormCase("BatchNorm1d", (64, 128, 500), channels_last=True),
    NormCase("BatchNorm3d", (4, 32, 16, 28, 28), channels_last=True),
    NormCase("LayerNorm", (32, 197, 384)),
    NormCase("LayerNorm", (256, 16, 12, 12), axes=3),
    NormCase("LayerNorm", (8192, 768), affine=False),
    NormCase("RMSNorm", (1, 4096)),
    NormCase("RMSNorm", (2048, 4096)),
    NormCase("GroupNorm", (8, 128, 1000), groups=8),
    NormCase("GroupNorm", (2, 512, 16, 16), groups=32),
    NormCase("InstanceNorm1d", (16, 64, 1000)),
    NormCase("InstanceNorm2d", (8, 64, 64, 64), affine=True),
    NormCase("InstanceNorm3d", (2, 16, 16, 28, 28)),
    NormCase("LayerNorm2d", (32, 96, 56, 56), channels_last=True),
    NormCase("LayerNorm2d", (8, 384, 14, 14)),
)

TYPES: Final = (
    NormCase("BatchNorm2d", (32, 64, 56, 56), channels_last=True, dtype="bfloat16"),
    NormCase("BatchNorm2d", (32, 64, 56, 56), dtype="bfloat16", mixed=True),
    NormCase("BatchNorm2d", (32, 64, 56, 56), dtype="float16"),
    NormCase("BatchNorm2d", (32, 64, 56, 56), dtype="float64"),
    NormCase("LayerNorm", (4096, 1024), dtype="bfloat16", mixed=True),
    NormCase("LayerNorm", (4096, 1024), dtype="float16"),
    NormCase("LayerNorm", (4096, 1024), dtype="float64"),
    NormCase("RMSNorm", (4096, 1024), dtype="float16"),
    NormCase("RMSNorm", (4096, 1024), dtype="float64"),
    NormCase("GroupNorm", (8, 320, 64, 64), groups=32, dtype="bfloat16"),
    NormCase("GroupNorm", (8, 320, 64, 64), groups=32, dtype="float64"),
    NormCase("InstanceNorm2d", (8, 320, 64, 64), dtype="bfloat16"),
    NormCase("InstanceNorm2d", (8, 320, 64, 64), dtype="float16"),
    NormCase("LayerNorm2d", (32, 96, 56, 56), dtype="bfloat16"),
)

MODELS: Final = (
    ModelCase("mobilenet", (1.7, 1.0)),
    ModelCase("mobilenet", (1.15, 1.0), channels_last=True),
    ModelCase("mobilenet", fused=True),
    ModelCase("mobilenet", fused=True, channels_last=True),
    ModelCase("resnet"),
    ModelCase("resnet", channels_last=True),
    ModelCase("resnet", fused=True),
    ModelCase("lenet"),
    ModelCase("convnext"),
    ModelCase("convnext", channels_last=True),
)

CASES: Final[tuple[NormCase | ModelCase, ...]] = HEADLINES + MODELS + SMALLEST + ODD + USUAL + TYPES
ROWS: Final = tuple(Row(case, measured) for case in CASES for measured in case.passes)
ROW_BY_NAME: Final = {row.name: row for row in ROWS}
MODEL_NAMES: Final = tuple(dict.fromkeys(case.model for case in MODELS))


def select(text: str = "", models: Sequence[str] = (), quick: bool = False) -> list[Row]:
    """The rows to time.

    Args:
        text: Words that a row's name must all hold.
        models: Names of networks: their training steps, and nothing else.
        quick: Only the rows of a quick run, unless models are named.
    Raises:
        UserError: a model that does not exist, or nothing is left.
    """
    for model in models:
        if model not in MODEL_NAMES:
            raise UserError(f"--model must be one of {', '.join(MODEL_NAMES)}, not {model!r}")
    rows: Sequence[Row] = ROWS
    if models:
        rows = [row for row in rows if isinstance(row.case, ModelCase) and row.case.model in models]
    elif quick:
        rows = [row for row in rows if row.case.quick]
    found = [row for row in rows if row.matches(text.split())]
    if not found:
        which = " of a --quick run" if quick and not models else ""
        raise UserError(
            f"--filter {text!r} matches none of {len(rows)} rows{which}; a row is called, for example, {rows[0].name!r}"
        )
    return found
