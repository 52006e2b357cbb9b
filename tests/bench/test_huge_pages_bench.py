"""The benchmark of huge pages: its two kinds of process, and what it says."""

import sys

import pytest

from normkit.backends import huge_pages as advice
from normkit.bench import huge_pages
from normkit.bench.huge_pages import HugePages
from normkit.bench.progress import Progress


@pytest.mark.slow
def test_it_says_what_it_measured() -> None:
    found = HugePages(processes=1)
    found.run(Progress())
    (section,) = found.sections()
    assert [row[0] for row in section.rows] == ["with", "without"]
    assert all(slowest >= middle > 0 for middle, slowest in found.summary().values())


@pytest.mark.parametrize("choice", ["with", "without"])
def test_without_them_no_result_is_large_enough(monkeypatch: pytest.MonkeyPatch, choice: str) -> None:
    seen: list[int] = []
    before = advice.LARGE

    def steps(*_: object) -> list[float]:
        seen.append(advice.LARGE)
        return [float(number) for number in range(10)]

    monkeypatch.setattr(huge_pages, "seconds_of_steps", steps)
    assert huge_pages.measure(choice) == (4.5, 9.0)
    assert seen == [before if choice == "with" else sys.maxsize]
    assert before == advice.LARGE


def test_report_of_an_interrupted_run() -> None:
    found = HugePages(4, {"with": [(1e-3, 2e-3), (3e-3, 4e-3), (2e-3, 9e-3)], "without": []})
    (section,) = found.sections()
    assert section.rows == (("with", "2 ms", "4 ms"),)
    assert found.to_json()["huge_pages"] == {"with": {"median": 2e-3, "slowest_tenth": 4e-3, "processes": 3}}
