"""What the project says in more than one place is the same in all of them."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import normkit

ROOT = Path(__file__).parent.parent


def test_the_version_stands_in_one_place() -> None:
    assert metadata.version("normkit") == normkit.__version__
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == normkit.__version__


def test_constraints_pin_all_that_is_required() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    required = {re.split(r"[^\w-]", name)[0] for names in (project["dependencies"], *extras) for name in names}
    pinned = set(re.findall(r"^([\w-]+)==\S+$", (ROOT / "constraints.txt").read_text(), re.MULTILINE))
    assert required - pinned == {"normkit"}
