"""Colours that every reader can tell apart, with text on them that every reader can read."""

import itertools

import numpy as np
import pytest

from normkit.explaining.palette import INK, PALETTE, colour, letters

# Machado, Oliveira & Fernandes 2009: what a dichromat sees, of linear RGB
SEEN_BY = {
    "everybody": np.eye(3),
    "protanopes": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopes": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopes": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
APART = 20.0  # CIE 1976 colour difference; 2.3 is just noticeable side by side


def linear(name: str) -> np.ndarray:
    value = np.array([int(name[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    relative = to_xyz @ rgb / np.array([0.95047, 1.0, 1.08883])
    f = np.where(relative > 0.008856, np.cbrt(relative), 7.787 * relative + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(name: str) -> float:
    return float(linear(name) @ np.array([0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("reader", SEEN_BY)
def test_any_two_colours_stay_apart(reader: str) -> None:
    seen = [lab(np.clip(np.array(SEEN_BY[reader]) @ linear(name), 0, 1)) for name in PALETTE]
    assert min(float(np.linalg.norm(one - other)) for one, other in itertools.combinations(seen, 2)) > APART


@pytest.mark.parametrize("name", PALETTE)
def test_text_on_a_colour_is_readable(name: str) -> None:
    assert (luminance(name) + 0.05) / (luminance(INK) + 0.05) >= 4.5  # WCAG 2.1, AA


def test_letters_and_colours() -> None:
    assert [letters(number) for number in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]
    assert len({colour(number) for number in range(len(PALETTE))}) == len(PALETTE)
    assert colour(len(PALETTE)) == colour(0)
