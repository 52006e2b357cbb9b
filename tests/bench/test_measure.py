"""Statistics, and the order and number of timed calls, by a clock that the calls themselves move."""

import gc
from collections.abc import Iterator

import pytest

from normkit.bench.measure import Call, Effort, Timing, geometric_mean, interleaved


class Clock:
    """Stands still until a call moves it."""

    def __init__(self) -> None:
        self.now = 0
        self.calls: list[str] = []

    def __call__(self) -> int:
        return self.now

    def call(self, name: str, seconds: Iterator[float]) -> Call:
        def run() -> None:
            self.calls.append(name)
            self.now += round(1e9 * next(seconds))

        return run


def constant(seconds: float) -> Iterator[float]:
    while True:
        yield seconds


def test_timing_is_median_and_quartiles() -> None:
    timing = Timing.of([5.0, 1.0, 4.0, 2.0, 3.0])
    assert timing == Timing(3.0, 2.0, 4.0, 5)
    assert timing.spread == pytest.approx(1 / 3)


def test_timing_of_one_sample() -> None:
    assert Timing.of([2.0]) == Timing(2.0, 2.0, 2.0, 1)


def test_interleaved_takes_turns() -> None:
    clock = Clock()
    calls = {name: clock.call(name, constant(1.0)) for name in ("ours", "torch", "copy")}
    timings = interleaved(calls, Effort(rounds=4, sample_seconds=0.5, row_seconds=1e9), clock)
    # a sample is a call that is not timed, and one that is; who is to be compared takes turns in coming first
    first, second = ["ours", "ours", "torch", "torch"], ["torch", "torch", "ours", "ours"]
    assert clock.calls[-24:] == [*first, "copy", "copy", *second, "copy", "copy"] * 2
    assert timings["ours"] == Timing(1.0, 1.0, 1.0, 4)


def test_fast_calls_are_repeated_within_a_sample() -> None:
    clock = Clock()
    timings = interleaved({"fast": clock.call("fast", constant(1e-4))}, Effort(3, 0.01, 1e9), clock)
    assert timings["fast"].median == pytest.approx(1e-4)
    warm_up = 1 + 501
    assert len(clock.calls) == warm_up + 3 * (1 + 100)


def test_the_median_ignores_a_disturbance() -> None:
    clock = Clock()
    seconds = iter([1.0, 1.0, *[1.0, 1.0] * 2, 1.0, 50.0, *[1.0, 1.0] * 2])
    timings = interleaved({"one": clock.call("one", seconds)}, Effort(5, 0.5, 1e9), clock)
    assert timings["one"].median == 1.0


def test_slow_rows_end_early() -> None:
    clock = Clock()
    timings = interleaved({"slow": clock.call("slow", constant(10.0))}, Effort(100, 0.1, 1.0), clock)
    assert timings["slow"].samples == 3


def test_garbage_collector_is_off_meanwhile_and_on_again() -> None:
    seen: list[bool] = []

    def fail() -> None:
        seen.append(gc.isenabled())
        raise ZeroDivisionError

    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError):
        interleaved({"fail": fail}, Effort(1, 0.1, 1.0))
    assert seen == [False]
    assert gc.isenabled()


def test_geometric_mean() -> None:
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
