"""A translation holds the code of its original, in the same order, so it needs to run only once."""

import re

import pytest

from tests.documents.blocks import ROOT, Block, blocks_of

README = ROOT / "README.zh-CN.md"
TRANSLATIONS = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").rglob("*.zh.md"))]
COMMENT = re.compile(r"(^|\s)#\s.*$", re.MULTILINE)


def without_comments(block: Block) -> str:
    return "\n".join(filter(None, map(str.rstrip, COMMENT.sub("", block.code).splitlines())))


def compare(translation: str, original: str) -> None:
    ours, theirs = (
        [block for block in blocks_of(page) if block.language in ("python", "console")]
        for page in (translation, original)
    )
    for mine, other in zip(ours, theirs, strict=False):
        assert (mine.language, without_comments(mine)) == (other.language, without_comments(other)), (
            f"{mine.place} differs from {other.place} in more than comments"
        )
    assert len(ours) == len(theirs), f"{translation} has {len(ours)} blocks that run, {original} has {len(theirs)}"


@pytest.mark.skipif(not README.exists(), reason="there is no README.zh-CN.md yet")
def test_both_readmes_hold_the_same_blocks() -> None:
    compare(README.name, "README.md")


@pytest.mark.parametrize("translation", TRANSLATIONS)
def test_a_translation_holds_the_blocks_of_its_original(translation: str) -> None:
    compare(translation, translation.replace(".zh.md", ".md"))


def test_comments_may_be_translated() -> None:
    english = Block("page.md", 1, "python", "# step.py\nx = 1  # one\n\n\ny = '#2'\n")
    chinese = Block("page.zh.md", 1, "python", "# step.py\nx = 1  # 一\ny = '#2'\n")
    assert without_comments(english) == without_comments(chinese) == "x = 1\ny = '#2'"
