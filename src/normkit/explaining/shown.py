"""What a terminal and a notebook show of a result. Each module of text registers how its result is rendered."""

from functools import singledispatch
from typing import Any

from rich.console import RenderableType

from normkit.explaining.words import language_of_locale
from normkit.renderable import Renderable, text_of


@singledispatch
def renderable_of(shown: Any, lang: str) -> RenderableType:
    """Return what a terminal shows of a result, in a language."""
    raise NotImplementedError(f"nothing renders a {type(shown).__name__}")


class Shown(Renderable):
    """A result whose ``str()`` is the text that ``normkit explain`` prints, Chinese where the locale is."""

    def __str__(self) -> str:
        """Return the text without colours, for 80 columns."""
        return text_of(self)

    def __rich__(self) -> RenderableType:
        return renderable_of(self, language_of_locale())
