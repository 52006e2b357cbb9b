"""The reports in docs/check.md are what the gallery gives. ``python tests/checking/test_docs.py`` writes them anew."""

import re
from pathlib import Path

import pytest

from normkit.checking.report import Report
from normkit.checking.run import examine
from normkit.checking.target.load import load

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "check.md"
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


def without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.]*(e[+-]?\d+)?", "#", " ".join(text.split()))


@pytest.mark.parametrize("target", CAUSES)
def test_gallery(target: str) -> None:
    report = report_of(target)
    assert CAUSES[target] <= set(report.codes)
    shown = dict(BLOCK.findall(PAGE.read_text()))
    assert without_numbers(shown[target]) == without_numbers(str(report))


if __name__ == "__main__":
    PAGE.write_text(
        BLOCK.sub(lambda m: f"```console\n$ normkit check {m[1]}\n{report_of(m[1])}\n```", PAGE.read_text())
    )
