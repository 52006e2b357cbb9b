"""The reports in docs/check.md are what the gallery gives. ``python tests/checking/test_docs.py`` writes them anew."""

import contextlib
import re
from pathlib import Path

import pytest

from normkit.checking.candidates import candidates
from normkit.checking.options import Options
from normkit.checking.report import Report
from normkit.checking.run import examine
from normkit.checking.summary import check_many
from normkit.checking.target.load import load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "check.md"
SUMMARY = re.compile(r"```console\n\$ normkit check (examples) --summary\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"```console\n\$ normkit check (examples/\S+)\n(.*?)```", re.DOTALL)

CAUSES = {
    "examples/whole_tensor.py:BatchNorm2D": {"wrong-axes"},
    "examples/textbook.py:BatchNorm": {"mode-by-grad", "state-not-saved"},
    "examples/course.py:batchnorm_forward": {"statistics-detached", "running-stats-init"},
    "examples/plain_attributes.py:BatchNorm2d": {
        "parameters-not-registered",
        "unbiased-normalization",
        "momentum-inverted",
        "state-not-saved",
        "state-attached",
    },
    "examples/annotated.py:LayerNorm": {"eps-misplaced", "unbiased-normalization"},
    "examples/trailing_axes.py:layer_norm": {"wrong-axes", "cancellation"},
    "examples/group_norm_nhwc.py:GroupNorm": {"group-order"},
    "examples/rms_norm_half.py:RMSNorm": {"half-accumulation"},
}


def report_of(target: str) -> Report:
    return examine(load(str(ROOT / target)), name=target, isolation="process")


def summary_of(folder: str) -> str:
    with contextlib.chdir(ROOT):
        return str(check_many(candidates([folder]), Options(), jobs=2, fork=True))


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.]*(e[+-]?\d+)?", "#", " ".join(text.split()))


@pytest.mark.parametrize("target", CAUSES)
def test_gallery(target: str) -> None:
    report = report_of(target)
    assert CAUSES[target] <= set(report.codes)
    shown = dict(BLOCK.findall(PAGE.read_text()))
    assert without_numbers(shown[target]) == without_numbers(str(report))


def test_summary_of_the_gallery() -> None:
    (shown,) = SUMMARY.findall(PAGE.read_text())
    assert without_numbers(shown[1]) == without_numbers(summary_of(shown[0]))


if __name__ == "__main__":
    text = BLOCK.sub(lambda m: f"```console\n$ normkit check {m[1]}\n{report_of(m[1])}\n```", PAGE.read_text())
    PAGE.write_text(
        SUMMARY.sub(lambda m: f"```console\n$ normkit check {m[1]} --summary\n{summary_of(m[1])}\n```", text)
    )
