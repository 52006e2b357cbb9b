"""Results without timing anything."""

from collections.abc import Callable

import pytest

from normkit.bench.measure import Timing
from normkit.bench.results import Result
from normkit.bench.table import ROW_BY_NAME


@pytest.fixture
def make_result() -> Callable[..., Result]:
    """Return a function that makes a result of a row by its name, from seconds by contender."""

    def make(name: str, regime: str = "retained", threads: int = 2, **seconds: float) -> Result:
        timings = {name: Timing(value, 0.95 * value, 1.05 * value, 5) for name, value in seconds.items()}
        row = ROW_BY_NAME[name]
        return Result(row, regime, threads, 2.5 if row.pass_ == "forward+backward" else 1.0, timings)

    return make
