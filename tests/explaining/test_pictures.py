"""Pictures: whole, the same every time, and with the words of their language."""

import re
import struct
from typing import Any

import numpy as np
import pytest

import normkit
from normkit.explaining import compare, pictures, running_statistics
from normkit.explaining.palette import PALETTE
from normkit.explaining.slabs import MAX_COLUMNS, MAX_ROWS, MAX_SLABS, as_slabs, column_labels, parameter, row_labels

DRAWN: list[tuple[Any, Any]] = [
    (pictures.draw_normalization, normkit.explain("group")),
    (pictures.draw_normalization, normkit.explain("rms", np.random.default_rng(0).normal(size=(9, 13, 7)))),
    (pictures.draw_normalization, normkit.explain("layer", np.arange(4.0))),
    (pictures.draw_comparison, compare()),
    (pictures.draw_running, running_statistics(steps=3, momentum=None)),
]


@pytest.mark.parametrize(("draw", "shown"), DRAWN)
def test_png_and_svg_are_whole_and_always_the_same(draw: Any, shown: Any) -> None:
    png = draw(shown, ".png")
    assert png.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", png[16:24])
    assert 300 < width < 6000
    assert 300 < height < 6000
    svg = draw(shown, ".svg")
    assert svg.rstrip().endswith(b"</svg>")
    assert draw(shown, ".svg") == svg


@pytest.mark.parametrize("fonts", [[], ["DejaVu Sans"]])
@pytest.mark.parametrize(("draw", "shown"), DRAWN)
def test_a_chinese_svg_needs_no_font_here(draw: Any, shown: Any, fonts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_cjk_fonts", lambda: fonts)
    assert pictures.has_font("zh") == bool(fonts)
    svg = draw(shown, ".svg", "zh").decode()
    assert bool(re.search("[\u4e00-\u9fff]", re.sub("<!--.*?-->", "", svg))) == (not fonts)


def test_a_chinese_png_without_a_font_is_labelled_in_english(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(pictures, "_cjk_fonts", list)
    seen = normkit.explain("group")
    seen.save(tmp_path / "zh.png", lang="zh")
    assert (tmp_path / "zh.png").read_bytes() == pictures.draw_normalization(seen, ".png")


def test_every_set_has_its_colour() -> None:
    def fills(seen: Any) -> set[str]:
        return set(re.findall(r"fill: (#[0-9a-f]{6})", pictures.draw_normalization(seen, ".svg").decode())) & {*PALETTE}

    assert fills(normkit.explain("batch")) == set(PALETTE[:4])
    assert fills(normkit.explain("instance")) == set(PALETTE)


def test_slabs_are_cut_off_where_they_are_large() -> None:
    case = normkit.explain("batch", np.random.default_rng(0).normal(size=(9, 20, 7, 7))).case
    assert as_slabs(case, case.sets).shape == (MAX_SLABS, MAX_ROWS, MAX_COLUMNS)
    assert len(row_labels(case)) == MAX_ROWS
    assert len(column_labels(case)) == MAX_COLUMNS


@pytest.mark.parametrize(
    ("kind", "shape", "channels_last", "expected", "is_below"),
    [
        ("batch", (2, 4, 2, 2), False, (4, 1), False),
        ("batch", (2, 2, 2, 4), True, (1, 4), True),
        ("layer", (2, 4, 2, 2), False, (4, 4), False),
        ("layer", (2, 3, 4), True, (1, 4), True),
        ("group", (3, 4), False, (1, 4), True),
    ],
)
def test_weights_stand_along_the_axes_they_vary_on(
    kind: str, shape: Any, channels_last: bool, expected: tuple[int, int], is_below: bool
) -> None:
    x = np.random.default_rng(0).normal(size=shape)
    found = parameter(normkit.explain(kind, x, channels_last=channels_last).case)
    assert found.numbers.shape == expected
    assert found.is_below == is_below
