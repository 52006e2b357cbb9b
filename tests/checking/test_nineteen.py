"""Small layers, one for each way to misread what people write: each has its right verdict beside it, in ``EXPECT``."""

import json
from pathlib import Path

import pytest

from normkit.checking.report import Report, Verdict
from normkit.checking.run import examine
from normkit.checking.target.load import load

CASES = sorted(Path(__file__).with_name("cases").glob("*.py"))
EXIT: dict[Verdict, int] = {"equivalent": 0, "not equivalent": 1, "not judged": 2}


def report_of(path: Path) -> Report:
    return examine(load(f"{path}:{load(f'{path}:TARGET')}"))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_verdict_is_right(path: Path) -> None:
    expected, report = load(f"{path}:EXPECT"), report_of(path)
    found = {finding.code for finding in report.findings if finding.severity != "note"}
    assert EXIT[report.verdict] == expected["exit"]
    assert found >= set(expected["has"])
    assert not found & set(expected["not"])
    assert expected.get("says", "") in json.dumps(report.to_dict().get("error", ""))


def test_none_is_forgotten() -> None:
    assert len(CASES) == 19
