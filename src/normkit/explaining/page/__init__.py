"""One self-contained HTML page: choose a norm and an input, point at a cell, see what shares its mean.

The page computes nothing. Every number in it comes from ``reference.py``, for every choice that can be made; the
script chooses among them and formats them.
"""

from importlib.metadata import version
from importlib.resources import files
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from normkit.explaining.normalization import Normalization
from normkit.explaining.page.data import page_data
from normkit.explaining.palette import INK, PALETTE
from normkit.explaining.words import LANGUAGES, WORDS


def page(shown: Normalization | None = None, lang: str = "en") -> str:
    """Return the page.

    Args:
        shown: What it begins with, its array among the inputs; None begins with batch norm of an example.
        lang: The language that it begins with; its reader may choose the other.
    """
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the page offers inputs in their order
    folder = files("normkit.explaining.page")
    text = {name: (folder / name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
    data: dict[str, Any] = page_data(shown)
    data["words"] = {
        language: {key: texts[column] for key, texts in WORDS.items()} for column, language in enumerate(LANGUAGES)
    }
    data["palette"] = PALETTE
    return environment.from_string(text["page.html"]).render(
        lang=lang,
        ink=INK,
        css=Markup(text["page.css"]),
        js=Markup(text["page.js"]),
        data=data,
        version=version("normkit"),
    )
