"""Timing: interleaved samples of several calls, and their statistics."""

import gc
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import quantiles
from time import perf_counter_ns
from typing import Final

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median of several samples, and their quartiles."""

    median: float
    low: float
    high: float
    samples: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Timing":
        """Summarize samples, one at least."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        low, middle, high = quantiles(samples, n=4, method="inclusive")
        return cls(middle, low, high, len(samples))

    @property
    def spread(self) -> float:
        """Half the distance between the quartiles, relative to the median."""
        return (self.high - self.low) / 2 / self.median


@dataclass(frozen=True)
class Effort:
    """The duration of a measurement.

    Args:
        rounds: Samples of each call.
        sample_seconds: The least duration of a sample: fast calls are repeated within it.
        row_seconds: Once a row has taken this long, it ends after MIN_ROUNDS rounds.
        warm_up_seconds: Each call is repeated for this long before.
    """

    rounds: int
    sample_seconds: float
    row_seconds: float
    warm_up_seconds: float = 0.05


MIN_ROUNDS: Final = 3
FULL: Final = Effort(rounds=9, sample_seconds=0.005, row_seconds=2.0)
QUICK: Final = Effort(rounds=5, sample_seconds=0.002, row_seconds=0.1, warm_up_seconds=0.02)


def interleaved(
    calls: Mapping[str, Call], effort: Effort, clock: Callable[[], int] = perf_counter_ns
) -> dict[str, Timing]:
    """Time calls in turn, so that whatever else the machine does meets all of them alike.

    Every sample begins with a call that is not timed: caches and allocator are then as the call itself leaves them,
    not as its neighbour did; and as that is not all that a neighbour leaves, every other round takes all but the last
    call in reverse order. The garbage collector is off meanwhile.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        inner = {
            name: _repeats(_warm_up(call, effort.warm_up_seconds, clock), effort.sample_seconds)
            for name, call in calls.items()
        }
        samples: dict[str, list[float]] = {name: [] for name in calls}
        *contenders, last = calls
        began = clock()
        for done in range(effort.rounds):
            if done >= MIN_ROUNDS and (clock() - began) / 1e9 > effort.row_seconds:
                break
            for name in (*(reversed(contenders) if done % 2 else contenders), last):
                samples[name].append(_sample(calls[name], inner[name], clock))
    finally:
        if was_enabled:
            gc.enable()
    return {name: Timing.of(times) for name, times in samples.items()}


def _warm_up(call: Call, seconds: float, clock: Callable[[], int]) -> float:
    """Call until compilation, caches and allocator have settled; return the fastest call's seconds."""
    call()
    fastest = math.inf
    began = clock()
    for _ in range(10_000):
        before = clock()
        call()
        after = clock()
        fastest = min(fastest, (after - before) / 1e9)
        if (after - began) / 1e9 > seconds:
            break
    return fastest


def _repeats(seconds: float, sample_seconds: float) -> int:
    return max(1, math.ceil(sample_seconds / max(seconds, 1e-9)))


def _sample(call: Call, inner: int, clock: Callable[[], int]) -> float:
    """Return the seconds of one call."""
    call()
    began = clock()
    for _ in repeat(None, inner):
        call()
    return (clock() - began) / inner / 1e9


def geometric_mean(ratios: Sequence[float]) -> float:
    """Return the average of ratios."""
    return math.exp(sum(map(math.log, ratios)) / len(ratios))
