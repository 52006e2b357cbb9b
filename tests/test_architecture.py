"""Dependencies point one way, and importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "normkit"

# What each part may import from the package; nothing below knows what is above it.
ALLOWED = {
    "errors": set(),
    "spec": set(),
    "reference": {"spec"},
    "statistics": {"spec"},
    "backends/numba": {"backends.numba", "backends.caches", "spec"},
    "backends": {"backends", "spec", "statistics"},
    "functional": {"backends", "spec", "statistics"},
    "layers": {"layers", "functional", "backends", "spec", "statistics"},
}
FREE_OF = {
    "spec": {"torch", "numba", "numpy"},
    "reference": {"torch", "numba"},
    "backends/numba": {"torch"},
}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "normkit" else set()
            )
    return found


def files(part: str) -> list[Path]:
    path = PACKAGE / part
    inner = (
        [file for file in path.rglob("*.py") if part != "backends" or "numba" not in file.parts]
        if path.is_dir()
        else []
    )
    return inner or [path.with_suffix(".py")]


@pytest.mark.parametrize("part", ALLOWED)
def test_dependencies_point_one_way(part: str) -> None:
    allowed = {f"normkit.{name}" for name in ALLOWED[part]} | {"normkit"}
    for file in files(part):
        for module in imports(file):
            if module.startswith("normkit."):
                assert any(module == name or module.startswith(name + ".") for name in allowed - {"normkit"}), (
                    file,
                    module,
                )
            assert module.partition(".")[0] not in FREE_OF.get(part, set()), (file, module)


def test_the_reference_works_without_torch() -> None:
    blocker = "import sys; sys.modules['torch'] = sys.modules['numba'] = None\n"
    code = f"""
import importlib.util, numpy
{blocker}
package = type(sys)("normkit"); package.__path__ = [{str(PACKAGE)!r}]; sys.modules["normkit"] = package
from normkit.reference import normalize
from normkit.spec import Norm
print(normalize(numpy.arange(6.0).reshape(2, 3), Norm("layer", normalized_shape=(3,))).y[0])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "-1.22" in run.stdout


def test_importing_brings_torch_and_numpy_only() -> None:
    code = "import sys, torch; before = set(sys.modules); import normkit; print(*set(sys.modules) - before)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    brought = {module.partition(".")[0] for module in run.stdout.split()}
    assert not brought & {"numba", "llvmlite", "matplotlib", "rich", "typer", "sklearn", "scipy", "pytest"}, brought


def test_public_names() -> None:
    import normkit

    assert all(hasattr(normkit, name) for name in normkit.__all__)
    assert sorted(set(normkit.__all__)) == sorted(normkit.__all__)
