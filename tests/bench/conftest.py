"""Results without timing anything."""

import pytest

from normkit.bench.cases import ROW_BY_NAME
from normkit.bench.measure import Timing
from normkit.bench.results import Result


@pytest.fixture
def make_result():
    """A result of a row by its name, from seconds by contender."""

    def make(name, regime="kept", threads=2, **seconds):
        timings = {who: Timing(value, 0.95 * value, 1.05 * value, 5) for who, value in seconds.items()}
        row = ROW_BY_NAME[name]
        return Result(row, regime, threads, 2.5 if row.measured == "forward+backward" else 1.0, timings)

    return make
