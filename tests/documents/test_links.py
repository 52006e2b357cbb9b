"""Every relative link and image points to something that exists, headings included."""

import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.documents.blocks import ROOT

PAGES = [
    path.relative_to(ROOT).as_posix() for path in (*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")))
]
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:")  # https:, mailto:
HTML_LINK = re.compile(r"""(?:href|src|srcset)="([^"]+)\"""")


def links(text: str) -> Iterator[str]:
    for token in _tokens(text):
        if token.type in ("html_inline", "html_block"):
            yield from HTML_LINK.findall(token.content)
        yield from (str(token.attrs[name]) for name in ("href", "src") if name in token.attrs)


def anchors(text: str) -> set[str]:
    """The anchors of the headings, as GitHub and the site both make them."""
    tokens = MarkdownIt().enable("table").parse(text)
    found: set[str] = set()
    for heading, content in pairwise(tokens):
        if heading.type == "heading_open":
            words = "".join(child.content for child in content.children or ())
            found.add(re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-"))
    return found


def broken(text: str, page: Path) -> Iterator[str]:
    for link in links(text):
        if ELSEWHERE.match(link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if path and not target.exists():
            yield f"{link}: there is no such file"
        elif anchor and anchor not in anchors(target.read_text() if path else text):
            yield f"{link}: there is no such heading"


def _tokens(text: str) -> Iterator[Token]:
    for token in MarkdownIt().enable("table").parse(text):
        yield token
        yield from token.children or ()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    found = list(broken((ROOT / page).read_text(), ROOT / page))
    assert not found, "\n".join([f"{page} has links that lead nowhere:", *found])


@pytest.mark.parametrize(
    ("text", "links_broken"),
    [
        (
            "[a](README.md) [b](#its-heading) ![c](docs/images/bench.png) [d](https://a.org/none)\n\n# It's: *heading*",
            0,
        ),
        ("[a](none.md)", 1),
        ("![a](docs/none.png)", 1),
        ("[a](#none)", 1),
        ("[a](README.md#no-heading-of-this-name)", 1),
        ("|a|\n|-|\n|[a](none.md)|", 1),
        ('<img src="none.png">', 1),
        ('words <a href="none.md">a</a>', 1),
        ("[a]\n\n[a]: none.md", 1),
        ("`[a](none.md)`", 0),
    ],
)
def test_broken_links_are_found(text: str, links_broken: int) -> None:
    assert len(list(broken(text, ROOT / "page.md"))) == links_broken
