"""What the terminal shows: every cell with its letter, in any width, without colour, in two languages."""

import io
import re
import string

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console
from torch import nn, ones

from normkit.explaining import compare, explain, norms_of, render, running_statistics
from normkit.explaining.palette import letters
from normkit.explaining.text import format_number
from normkit.explaining.words import WORDS, language_of_locale, words
from normkit.renderable import text_of

SHOWN = [
    explain("group"),
    explain("rms", channels_last=True),
    explain("layer", np.random.default_rng(0).normal(size=(3, 40, 12))),
    compare(),
    running_statistics(steps=3),
    running_statistics("instance", momentum=0.5, steps=3, channels_last=True),
    norms_of(nn.Sequential(nn.LayerNorm(3), nn.BatchNorm1d(2)), ones(2, 2, 3)),
]


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: type(shown).__name__)
def test_it_fits_sixty_columns(shown: object, lang: str) -> None:
    lines = text_of(render(shown, lang), 60).splitlines()  # type: ignore[arg-type]
    assert max(map(cell_len, lines)) <= 60
    assert not any("…" in line for line in lines)
    assert any("\u4e00" <= character <= "\u9fff" for line in lines for character in line) == (lang == "zh")


def test_the_letters_are_the_sets() -> None:
    seen = explain("group")
    lines = text_of(render(seen)).splitlines()
    rows = [line for line in lines if re.match(r"N\d C\d", line)]
    found = [re.findall(r"(-?\d+\.\d\d) ([A-Z])", row) for row in rows]
    both = np.stack([seen.x, seen.y])
    assert [value for row in found for value, _ in row] == [format_number(value) for value in both.flat]
    expected = [letters(int(number)) for number in seen.case.sets.flat]
    assert [letter for row in found for _, letter in row] == expected * 2


def test_what_is_left_out_is_said() -> None:
    seen = explain("instance", np.random.default_rng(0).normal(size=(8, 16, 10, 10)))
    text = text_of(render(seen), 60)
    assert "Shown: 32 of 128 rows, 3 of 100 columns." in text
    assert "Shown: 32 of 128 sets." in text


def test_the_last_set_that_fits_is_shown() -> None:
    text = text_of(render(explain("instance", np.random.default_rng(0).normal(size=(4, 8, 3)))))
    assert "Shown" not in text
    assert " AF " in text


def test_colours_are_added_to_letters() -> None:
    coloured = io.StringIO()
    Console(file=coloured, force_terminal=True, color_system="truecolor", width=80).print(render(explain("batch")))
    assert "\x1b[" in coloured.getvalue()
    stripped = re.sub(r"\x1b\[[0-9;]*m", "", coloured.getvalue())
    assert [line.rstrip() for line in stripped.splitlines()] == text_of(render(explain("batch"))).splitlines()


def test_english_needs_no_more_than_ascii() -> None:
    for shown in SHOWN:
        assert text_of(render(shown)).isascii()  # type: ignore[arg-type]


def test_rms_norm_speaks_of_mean_squares() -> None:
    text = text_of(render(explain("rms")))
    assert "mean square" in text
    assert "bias" not in text
    assert "(x - mean)" not in text


def test_the_comparison_tells_layer_norm_from_group_norm() -> None:
    text = text_of(render(compare(num_groups=1)), 100)
    images, sequences, _ = (part.splitlines() for part in text.split("Input ")[1:])

    def cells(lines: list[str], name: str) -> str:
        (line,) = [line for line in lines if line.startswith(name) and not set(string.digits) & set(line)]
        return line.removeprefix(name).strip()

    assert cells(images, "Layer") == cells(images, "Group")
    assert cells(sequences, "Layer") == "AAAA BBBB CCCC | DDDD EEEE FFFF"
    assert cells(sequences, "Group") == "AAAA AAAA AAAA | BBBB BBBB BBBB"


def test_both_languages_say_the_same() -> None:
    for english, chinese in WORDS.values():
        assert set(re.findall(r"\{(\w+)\}", english)) >= set(re.findall(r"\{(\w+)\}", chinese))
        assert english
        assert chinese


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"LANG": "zh_CN.UTF-8"}, "zh"),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LC_MESSAGES": "zh_TW"}, "zh"),
    ],
)
def test_the_language_is_that_of_the_locale(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert language_of_locale() == expected


def test_another_language_is_refused() -> None:
    with pytest.raises(ValueError, match="choose from en, zh"):
        words("fr")
