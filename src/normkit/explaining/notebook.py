"""What a notebook shows of an explanation: the picture, and the text with its colours."""

import io

from rich.console import Console, RenderableType

from normkit.explaining.normalization import Normalization
from normkit.explaining.text import render


def html_of(seen: Normalization, lang: str) -> str:
    """Return HTML that needs nothing else."""
    from normkit.explaining.pictures import draw_normalization

    svg = draw_normalization(seen, ".svg", lang).decode()
    picture = svg[svg.index("<svg") :]
    return f'<div style="max-width: 56em">{picture}</div>{text_html(render(seen, lang))}'


def text_html(renderable: RenderableType, width: int = 100) -> str:
    """Return what a terminal would show as HTML, colours included."""
    console = Console(
        file=io.StringIO(), record=True, width=width, force_terminal=True, force_jupyter=False, highlight=False
    )
    console.print(renderable)
    return console.export_html(
        inline_styles=True, code_format='<pre style="line-height: 1.3; overflow-x: auto"><code>{code}</code></pre>'
    )
