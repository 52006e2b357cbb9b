"""What the documents say of the source is true: quoted lines exist, and named files exist."""

from pathlib import Path

import pytest

from tests.documents.blocks import ROOT, Block, blocks_of, pages

PACKAGE = ROOT / "src" / "normkit"
QUOTES = [block for page in pages() for block in blocks_of(page) if block.source]


def code(line: str) -> str:
    """A line without its indentation and comment, since a page adds shapes at line ends."""
    return line.partition("  #")[0].strip()


@pytest.mark.parametrize("quote", QUOTES, ids=lambda quote: quote.place)
def test_every_quoted_line_is_in_its_file(quote: Block) -> None:
    assert quote.source is not None
    source = {code(line) for line in (ROOT / quote.source).read_text().splitlines()}
    missing = [line for line in quote.code.splitlines()[1:] if code(line) not in source]
    assert not missing, f"{quote.source} does not have these lines, which {quote.place} quotes: {missing}"


def test_the_tree_in_design_names_files_that_exist() -> None:
    tree = next(block.code for block in blocks_of("docs/design.md") if block.code.startswith("src/normkit/\n"))
    folders = {2: PACKAGE}
    named: list[Path] = []
    for line in tree.splitlines()[1:]:
        indent = len(line) - len(line.lstrip())
        names, _, _ = line.strip().partition("  ")
        for name in names.split(", "):
            named.append(folders[indent] / name)
            if name.endswith("/"):
                folders[indent + 2] = named[-1]
    assert len(named) > 30
    assert [str(path.relative_to(PACKAGE)) for path in named if not path.exists()] == []
