"""The form of a benchmark's cases: one layer and one input, or one network, and the target that it should reach.

A target is torch.nn's time divided by ours, with two threads. Higher is better, and 1.0 means as fast.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

FORWARD: Final = "forward"
EVALUATION: Final = "evaluation"
BOTH: Final = "forward+backward"
STEP: Final = "training step"
PASSES: Final = (FORWARD, EVALUATION, BOTH)

DEFAULT: Final = "default"
RETAINED: Final = "retained"

THREADS_OF_TARGETS: Final = 2
DEFAULT_TARGET: Final = 0.9
"""The target of every case without one of its own: no slower than torch.nn, up to the noise of a measurement."""
LARGE_BYTES: Final = 64_000_000
LARGE_TARGET: Final = 2.0
"""The target of inputs over LARGE_BYTES in a default process, where fresh memory is most of what they cost."""

ITEM_BYTES: Final = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True)
class NormCase:
    """One layer and one input.

    Args:
        norm: The layer's class, the same name in torch.nn and in normkit (torch.nn's LayerNorm2d and BatchNormAct2d
            are several layers).
        shape: Of the input.
        targets: For forward and for forward+backward.
        channels_last: The channels are innermost in memory (three axes: a transposed N L C).
        dtype: Of the input, and of the parameters unless ``mixed``.
        mixed: The parameters are float32.
        groups: For GroupNorm.
        affine: Whether there are weight and bias; None: the class's own default.
        axes: Number of last axes that LayerNorm and RMSNorm normalize over.
        headline: The case has targets of its own.
        smallest: The case belongs to a quick run because it is small.
    """

    norm: str
    shape: tuple[int, ...]
    targets: tuple[float, float] = (DEFAULT_TARGET, DEFAULT_TARGET)
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
        """True for a part of a quick run."""
        return self.smallest or (self.headline and self.nbytes <= LARGE_BYTES)

    @property
    def name(self) -> str:
        """The case in one line; unique."""
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
        """The passes that are timed."""
        return PASSES

    def target(self, pass_: str, regime: str) -> float:
        """Return the least ratio of torch.nn's time to ours that is asked for."""
        if pass_ == EVALUATION:
            return DEFAULT_TARGET
        if regime == DEFAULT:
            return LARGE_TARGET if self.nbytes > LARGE_BYTES else DEFAULT_TARGET
        return self.targets[pass_ == BOTH]


@dataclass(frozen=True)
class ModelCase:
    """A whole training step of a small network: forward, loss, backward, optimizer.

    Args:
        model: Its name in :mod:`normkit.bench.models`.
        targets: With memory retained, and in a default process.
        channels_last: Model and input are in that memory format.
        fused: Our batch norms with an activation behind them are a BatchNormAct2d.
    """

    model: str
    targets: tuple[float, float] = (1.0, 1.0)
    channels_last: bool = False
    fused: bool = False
    headline: bool = True
    quick: bool = False

    @property
    def name(self) -> str:
        """The case in one line; unique."""
        fused = " with BatchNormAct2d" if self.fused else ""
        return self.model + fused + (" channels_last" if self.channels_last else "")

    @property
    def passes(self) -> tuple[str, ...]:
        """The passes that are timed."""
        return (STEP,)

    def target(self, pass_: str, regime: str) -> float:
        """Return the least ratio of torch.nn's time to ours that is asked for."""
        return self.targets[regime == DEFAULT]


@dataclass(frozen=True)
class Row:
    """One thing to time."""

    case: NormCase | ModelCase
    pass_: str

    @property
    def name(self) -> str:
        """The case and the pass in one line; unique."""
        return f"{self.case.name} {self.pass_}"

    def matches(self, words: Sequence[str]) -> bool:
        """Return whether the name holds every word, in upper or lower case."""
        name = self.name.lower()
        return all(word.lower() in name for word in words)
