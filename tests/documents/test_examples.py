"""The scripts among the examples run, and stay short. The others are layers, which tests/checking examines."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.blocks import ROOT
from tests.documents.running import SECONDS, environment

EXAMPLES = ROOT / "examples"
NOTEBOOK = EXAMPLES / "tour.ipynb"
DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)


def acts(path: Path) -> bool:
    """Whether a file does more than to import and to define: a docstring aside, any other statement."""
    body = ast.parse(path.read_text()).body
    rest = body[1:] if ast.get_docstring(ast.parse(path.read_text())) else body
    return not all(isinstance(statement, DEFINITIONS) for statement in rest)


SLOW = {"small_batches.py"}
SCRIPTS = [
    pytest.param(path.name, marks=[pytest.mark.slow] if path.name in SLOW else [])
    for path in sorted(EXAMPLES.glob("*.py"))
    if acts(path)
]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_runs_and_is_short(script: str, folder: Path) -> None:
    assert len((EXAMPLES / script).read_text().splitlines()) < 60
    done = subprocess.run(
        [sys.executable, f"examples/{script}"],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{script} failed\n{done.stderr}"
    assert done.stdout.strip(), f"{script} prints nothing"


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not NOTEBOOK.exists(), reason="there is no examples/tour.ipynb yet")
def test_the_notebook_runs(folder: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(folder)}}).execute()
