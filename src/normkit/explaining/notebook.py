"""What a notebook shows of an explanation: the picture, and the text with its colours."""

from normkit import renderable
from normkit.explaining.normalization import Normalization
from normkit.explaining.text import render


def html_of(seen: Normalization, lang: str) -> str:
    """Return HTML that needs nothing else."""
    from normkit.explaining.pictures import draw_normalization

    svg = draw_normalization(seen, ".svg", lang).decode()
    picture = svg[svg.index("<svg") :]
    return f'<div style="max-width: 56em">{picture}</div>{renderable.html_of(render(seen, lang))}'
