"""docs/check.md: what its gallery and its tables say.

tests/documents runs its commands and compares the reports. ``python tests/checking/test_docs.py`` writes them anew.
"""

import contextlib
import re
from pathlib import Path

import pytest

from normkit.checking.candidates import candidates
from normkit.checking.options import Options
from normkit.checking.report import Report
from normkit.checking.run import examine
from normkit.checking.summary import check_many
from normkit.checking.target.arrays import NUMPY
from normkit.checking.target.errors import CannotRunError
from normkit.checking.target.load import load
from normkit.checking.target.made import made

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "check.md"
SUMMARY = re.compile(r"```console\n\$ normkit check (examples) --summary\n(.*?)```", re.DOTALL)
BLOCK = re.compile(r"```console\n\$ normkit check (examples/\S+)\n(.*?)```", re.DOTALL)

PYTHON = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

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


@pytest.mark.parametrize("target", CAUSES)
def test_the_gallery_shows_the_faults(target: str) -> None:
    (shown,) = (report for name, report in BLOCK.findall(PAGE.read_text()) if name == target)
    codes = set(re.findall(r"^ *(?:error|warning)  ([\w-]+):", shown, re.MULTILINE))
    assert CAUSES[target] <= codes


def test_adapter(tmp_path: Path) -> None:
    files = dict(PYTHON.findall(PAGE.read_text()))
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    assert len([line for line in files["adapt.py"].splitlines() if line]) < 10
    target = load(f"{tmp_path / 'blocks.py'}:AddNorm")
    with pytest.raises(CannotRunError):
        examine(target)
    report = examine(target, Options(adapter=f"{tmp_path / 'adapt.py'}:make"))
    assert (report.family, report.verdict) == ("layer", "equivalent")
    assert report.identity.parameters == {"layer.weight": "(6,), starts at 1", "layer.bias": "(6,), starts at 0"}


@pytest.mark.parametrize(
    ("value", "shape", "kind"),
    [
        ("ones", (5, 6, 3, 4), "f"),
        ("ones(N,L)", (), ""),
        ("zeros(N, 1, H, W)", (5, 1, 3, 4), "f"),
        ("randn(N,12)", (5, 12), "f"),
        ("rand(C)", (6,), "f"),
        ("mask(N,H,W)", (5, 3, 4), "b"),
        ("randint(10)", (5,), "i"),
        ("randint(10,N,H)", (5, 3), "i"),
    ],
)
def test_further_inputs(value: str, shape: tuple[int, ...], kind: str) -> None:
    wanted = made(value)
    assert wanted is not None
    if not kind:
        with pytest.raises(ValueError, match="the input's axes are NCHW"):
            wanted.make(NUMPY, (5, 6, 3, 4), "NCHW")
        return
    array = wanted.make(NUMPY, (5, 6, 3, 4), "NCHW")
    assert (array.shape, array.dtype.kind) == (shape, kind)
    assert str(made(str(wanted))) == str(wanted)


def test_what_is_no_further_input_is_a_word() -> None:
    assert [made(value) for value in ("fast", "onesie", "randint", "randint(K)", 3, None)] == [None] * 6


if __name__ == "__main__":
    text = BLOCK.sub(lambda m: f"```console\n$ normkit check {m[1]}\n{report_of(m[1])}\n```", PAGE.read_text())
    PAGE.write_text(
        SUMMARY.sub(lambda m: f"```console\n$ normkit check {m[1]} --summary\n{summary_of(m[1])}\n```", text)
    )
