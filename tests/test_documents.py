"""What the documents say of the code is true: quoted lines exist, named files exist, and their examples run."""

import re
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "normkit"
NAMES = ("README.md", "docs/design.md", "docs/from-reference-to-kernel.md")
PAGES = {name: (ROOT / name).read_text() for name in NAMES}
QUOTES = re.findall(r"^```python\n# (src/\S+)\n(.*?)^```$", PAGES["docs/from-reference-to-kernel.md"], re.M | re.S)
EXAMPLES = {page: re.findall(r"^```python\n(?!# src/)(.*?)^```$", text, re.M | re.S) for page, text in PAGES.items()}


def code(line: str) -> str:
    """A line without its indentation and comment, since a page adds shapes at line ends."""
    return line.partition("  #")[0].strip()


@pytest.mark.parametrize(("name", "quote"), QUOTES)
def test_every_quoted_line_is_in_its_file(name: str, quote: str) -> None:
    source = {code(line) for line in (ROOT / name).read_text().splitlines()}
    missing = [line for line in quote.splitlines() if code(line) not in source]
    assert not missing, f"{name} does not have these lines, which docs/from-reference-to-kernel.md quotes: {missing}"


def test_the_tree_in_design_names_files_that_exist() -> None:
    tree = PAGES["docs/design.md"].partition("    src/normkit/\n")[2].partition("\n\n")[0]
    folders = {6: PACKAGE}
    named: list[Path] = []
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        names, _, _ = line.strip().partition("  ")
        for name in names.split(", "):
            named.append(folders[indent] / name)
            if name.endswith("/"):
                folders[indent + 2] = named[-1]
    assert len(named) > 30
    assert [str(path.relative_to(PACKAGE)) for path in named if not path.exists()] == []


@pytest.mark.parametrize("page", [page for page, examples in EXAMPLES.items() if examples])
def test_examples_run(page: str) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.LayerNorm(8))
    namespace = {"model": model, "x": torch.randn(2, 768)}
    for example in EXAMPLES[page]:
        exec(compile(example, page, "exec"), namespace)
