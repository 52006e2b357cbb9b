"""The forms of an explanation: text for a terminal, a picture, a page."""

from pathlib import Path
from typing import Final

from rich.console import RenderableType

from normkit.explaining import comparison_text, models_text, running_text, text  # noqa: F401  (they render)
from normkit.explaining.comparison import Comparison
from normkit.explaining.models import ModelNorms
from normkit.explaining.normalization import Normalization
from normkit.explaining.running import RunningStatistics
from normkit.explaining.shown import renderable_of
from normkit.explaining.words import language_of_locale
from normkit.extras import require
from normkit.files import require_place, write_atomic

PICTURES: Final = (".svg", ".png")
PAGE: Final = ".html"

Drawn = Normalization | Comparison | RunningStatistics


def render(shown: Drawn | ModelNorms, lang: str | None = None) -> RenderableType:
    """Return what a terminal shows, for ``rich.print``.

    Args:
        shown: What ``explain``, ``compare``, ``running_statistics`` or ``norms_of`` returned.
        lang: "en" or "zh"; None: Chinese where the locale is.
    """
    return renderable_of(shown, lang or language_of_locale())


def check_path(path: str | Path) -> Path:
    """Return a path that can be saved to.

    Raises:
        UserError: another ending, no such folder, or a package is missing.
    """
    path = Path(path)
    place = path.with_suffix(path.suffix.lower()) if path.suffix else path
    require_place(place, (*PICTURES, PAGE))
    if place.suffix == PAGE:
        require("a page", "cli", "jinja2")
    else:
        require("a picture", "cli", "matplotlib")
    return path


def can_show(lang: str, suffix: str) -> bool:
    """Whether a file of this ending can be in this language: a PNG needs a font that has its characters."""
    from normkit.explaining.pictures import has_font

    return suffix != ".png" or has_font(lang)


def save(shown: Drawn, path: str | Path, lang: str | None = None) -> None:
    """Write a picture or a page, by the ending of the path.

    Args:
        shown: What ``explain``, ``compare`` or ``running_statistics`` returned.
        path: The file: .svg, .png or .html.
        lang: "en" or "zh"; None: Chinese where the locale is.

    Raises:
        UserError: another ending, or the file cannot be written.
    """
    path, lang = check_path(path), lang or language_of_locale()
    suffix = path.suffix.lower()
    write_atomic(path, _page(shown, lang) if suffix == PAGE else _picture(shown, suffix, lang))


def _picture(shown: Drawn, suffix: str, lang: str) -> bytes:
    from normkit.explaining import pictures

    lang = lang if can_show(lang, suffix) else "en"
    if isinstance(shown, Normalization):
        return pictures.draw_normalization(shown, suffix, lang)
    if isinstance(shown, Comparison):
        return pictures.draw_comparison(shown, suffix, lang)
    return pictures.draw_running(shown, suffix, lang)


def _page(shown: Drawn, lang: str) -> bytes:
    from normkit.explaining.page import page

    return page(shown if isinstance(shown, Normalization) else None, lang).encode()
