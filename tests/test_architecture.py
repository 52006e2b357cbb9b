"""Dependencies point one way, nothing imports itself over others, and importing is cheap."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "normkit"

# What each part may import beside itself; nothing knows what is above it. `normkit` is the package's own face.
_CORE = {"spec", "statistics", "backends"}
_LIBRARY = {*_CORE, "choices", "errors", "functional", "layers", "model"}
ALLOWED = {
    "errors": set(),
    "choices": set(),
    "conventions": set(),
    "threads": {"errors"},
    "spec": set(),
    "statistics": set(),
    "reference": {"spec"},
    "backends.processor": set(),
    "backends.numba": {"backends.processor", "spec"},
    "backends": {"spec", "statistics"},
    "functional": _CORE,
    "layers": _CORE,
    "bench.measure": set(),
    "model": {*_LIBRARY, "bench.measure", "conventions", "extras", "files", "pages", "renderable"},
    "checking": {"choices", "conventions", "errors", "renderable"},
    "testing": {"errors", "checking"},
    "extras": {"errors"},
    "files": {"errors"},
    "json_types": set(),
    "pages": set(),
    "renderable": set(),
    "lightning": {"model"},
    "explaining": {*_LIBRARY, "extras", "files", "pages", "reference", "renderable"},
    "normkit": {*_LIBRARY, "bench", "checking", "explaining", "reference", "testing", "train"},
    "train": {*_LIBRARY, "extras", "files", "json_types", "renderable", "threads", "checking"},
    "bench": {*_LIBRARY, "reference", "threads"},
    "__main__": {"cli"},
    "cli": {
        *["choices", "conventions", "errors", "extras", "json_types", "normkit", "threads"],
        *["bench", "checking", "explaining", "model", "train"],
    },
}
# Inside checking: each module may import from its own floor and from those before it.
CHECKING_FLOORS = (
    {"families", "options", "patterns"},
    {"report", "github"},
    {"target"},
    {"measure"},
    {"rules"},
    {"run"},
    {"process", "candidates"},
    {"summary"},
    {""},  # the package itself
)
FREE_OF = {
    "spec": {"torch", "numba", "numpy"},
    "reference": {"torch", "numba"},
    "backends.numba": {"torch"},
    "checking.patterns": {"torch", "numba"},
}
# Modules whose dynamic imports have a name that no reader can see, and why.
DYNAMIC = {
    "backends.numba.kernel_cache": "the module of a kernel is imported only where its code is not on disk",
    "normkit": "whatever it names it imports for type checkers too, in plain sight",
    "checking.target.load": "it imports the code that is to be checked",
}


def name_of(path: Path) -> str:
    """The module of a file, without the name of the package; the package itself is "normkit"."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts) or "normkit"


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def named(node: ast.AST) -> Iterator[str | None]:
    """The modules that a node imports, lazily, for typing only or dynamically too; None: one that it does not name."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        assert node.module is not None
        inner = [alias.name for alias in node.names if is_module(f"{node.module}.{alias.name}")]
        yield from (f"{node.module}.{name}" for name in inner)
        if len(inner) < len(node.names):
            yield node.module
    elif isinstance(node, ast.Call):
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        if function in ("import_module", "__import__"):
            first = node.args[0] if node.args else None
            yield first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None


def is_module(name: str) -> bool:
    """Whether the package has a module of this full name."""
    return name.startswith("normkit.") and name.removeprefix("normkit.") in MODULES


@cache
def imports(module: str) -> frozenset[str | None]:
    """All that a module imports anywhere."""
    tree = ast.parse(MODULES[module].read_text())
    return frozenset(name for node in ast.walk(tree) for name in named(node))


def own(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = {name for name in imports(module) if name is not None and name.partition(".")[0] == "normkit"}
    return {name.removeprefix("normkit.") for name in found}


def part_of(module: str) -> str:
    """The part that a module belongs to: the longest name in ALLOWED that it begins with."""
    parts = [part for part in ALLOWED if module == part or module.startswith(part + ".")]
    assert parts, f"{module} belongs to no part: add it to ALLOWED"
    return max(parts, key=len)


@pytest.mark.parametrize("module", MODULES)
def test_dependencies_point_one_way(module: str) -> None:
    part = part_of(module)
    for name in own(module):
        assert name in MODULES, f"{module} imports {name}, which does not exist"
        assert part_of(name) in {part, *ALLOWED[part]} or part_of(name).startswith(part + "."), (module, name)
    for free, packages in FREE_OF.items():
        if module == free or module.startswith(free + "."):
            assert not {str(name).partition(".")[0] for name in imports(module)} & packages, module
    assert None not in imports(module) or module in DYNAMIC, f"{module} imports a module that a reader cannot see"


def checking_floor(module: str) -> int:
    """The floor of a module of checking."""
    name = module.removeprefix("checking").removeprefix(".").partition(".")[0]
    (floor,) = [number for number, floor in enumerate(CHECKING_FLOORS) if name in floor]
    return floor


@pytest.mark.parametrize("module", [module for module in MODULES if part_of(module) == "checking"])
def test_checking_imports_from_its_floor_and_below(module: str) -> None:
    for name in own(module):
        if part_of(name) == "checking":
            assert checking_floor(name) <= checking_floor(module), f"{module} imports {name}, which is above it"


def test_no_circles() -> None:
    graph = TopologicalSorter({module: own(module) - {module} for module in MODULES})
    try:
        graph.prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' <- '.join(error.args[1])}")


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


# Signatures that are torch's or timm's (those of functions with a mask); and those of commands, whose parameters are
# their options.
GIVEN_SIGNATURES = {
    "functional.batch_norm",
    "functional.instance_norm",
    "layers.batchnormact.__init__",
    "layers.syncbatchnorm.__init__",
    "cli.bench.times",
    "cli.check.check",
    "cli.convert.convert",
    "cli.explain.explain",
    "cli.port.port",
    "cli.recalibrate.recalibrate",
    "cli.train.train",
}


@pytest.mark.parametrize("module", MODULES)
def test_no_function_takes_too_much(module: str) -> None:
    most = 12 if module.startswith("backends.numba") else 8
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            names = [arg.arg for arg in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)]
            count = len([name for name in names if name not in ("self", "cls", "ctx")])
            if f"{module}.{node.name}" not in GIVEN_SIGNATURES:
                assert count <= most, f"{module}.{node.name} takes {count} parameters"
