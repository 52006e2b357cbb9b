"""Results that a terminal and a notebook show alike, from one rich renderable each."""

import io
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

WIDTH = 100
"""Of what a notebook shows, in characters."""


class Renderable:
    """A result that is shown as people read it. A subclass has ``str()``, and may say more by ``__rich__``."""

    def __rich__(self) -> "RenderableType":
        """Return what a terminal shows, for ``rich.print``."""
        from rich.text import Text

        return Text(str(self))

    def _repr_html_(self) -> str:
        return html_of(self)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: FBT001  (IPython's signature)
        printer.text("…" if cycle else str(self))


def unbroken(text: str, style: str = "") -> "Text":
    """Return a line that stays one, so that commands and paths can be copied; print it with ``crop=False``."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ignore")


def html_of(shown: "RenderableType") -> str:
    """Return what a terminal would show as HTML, colours included."""
    from rich.console import Console

    console = Console(
        file=io.StringIO(), record=True, width=WIDTH, force_terminal=True, force_jupyter=False, highlight=False
    )
    console.print(shown, crop=False)
    return console.export_html(
        inline_styles=True, code_format='<pre style="line-height: 1.3; overflow-x: auto"><code>{code}</code></pre>'
    )


def text_of(shown: "RenderableType", width: int = 80) -> str:
    """Return what a terminal would show as text without colours, for a terminal of this width."""
    from rich.console import Console

    text = io.StringIO()
    Console(
        file=text, width=width, color_system=None, force_terminal=False, force_jupyter=False, highlight=False
    ).print(shown, crop=False)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())
