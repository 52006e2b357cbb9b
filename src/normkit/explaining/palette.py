"""Letters and colours of sets of cells. A colour is never the only sign: every cell bears the letter of its set."""

from string import ascii_uppercase
from typing import Final

PALETTE: Final = ("#9dc4ff", "#ffc49d", "#58a858", "#9484e0", "#dcec7c", "#cf7f93", "#a6a632", "#3fe0d2")
"""Colours that stay apart for colour-blind readers too, each light enough for dark text on it."""

INK: Final = "#1f2328"
"""Of letters and numbers on these colours."""


def letters(number: int) -> str:
    """Return the letters of a set: A to Z, then AA, AB and so on, as the columns of a spreadsheet."""
    text = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, len(ascii_uppercase))
        text = ascii_uppercase[digit] + text
    return text


def colour(number: int) -> str:
    """Return the colour of a set; after eight sets the colours come again."""
    return PALETTE[number % len(PALETTE)]
