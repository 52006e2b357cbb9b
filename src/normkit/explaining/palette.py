"""Letters and colours of sets of cells. A colour is never the only sign: every cell bears the letter of its set."""

from string import ascii_uppercase
from typing import Final

PALETTE: Final = ("#8ecae6", "#f4a259", "#8fd3a8", "#f2a7c3", "#f5dd6b", "#b9a7e0", "#c9c9c9", "#e07a6a")
"""Light colours, all readable under black text, that differ in lightness too, for colour-blind readers."""

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
