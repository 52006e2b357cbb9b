"""One self-contained HTML page: choose a norm and an input, point at a cell, see what shares its mean.

The page computes nothing. Every number in it comes from ``reference.py``, for every choice that can be made; the
script chooses among them and formats them.
"""

from typing import Any

from normkit.explaining.normalization import Normalization
from normkit.explaining.page.data import page_data
from normkit.explaining.palette import INK, PALETTE
from normkit.explaining.words import LANGUAGES, WORDS
from normkit.pages import render_page


def page(shown: Normalization | None = None, lang: str = "en") -> str:
    """Return the page.

    Args:
        shown: What it begins with, its array among the inputs; None begins with batch norm of an example.
        lang: The language that it begins with; its reader may choose the other.
    """
    data: dict[str, Any] = page_data(shown)
    data["words"] = {
        language: {key: texts[column] for key, texts in WORDS.items()} for column, language in enumerate(LANGUAGES)
    }
    data["palette"] = PALETTE
    return render_page("normkit.explaining.page", lang=lang, ink=INK, data=data)
