"""What an error says of a word that is none of those to choose from."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(word: object, choices: Iterable[str]) -> str:
    """Return the end of an error that names the choice a misspelt word is like; nothing where it is like none."""
    by_lower = {choice.lower(): choice for choice in choices}
    close = get_close_matches(str(word).lower(), by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""
