"""The layers that files and folders define, found by their names without running anything."""

import ast
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from normkit.checking.target.names import family_of

_OTHER_THINGS = {
    *("backward", "bwd", "grad", "grads", "gradient", "gradients"),
    *("test", "tests", "check", "compare", "demo", "example", "main", "plot", "benchmark", "bench"),
    *("init", "initialize", "update", "params", "parameters", "config", "cache"),
    *("net", "network", "model", "cnn", "mlp", "rnn", "lstm", "gru", "resnet", "transformer", "classifier", "trainer"),
    *("block", "conv", "conv1d", "conv2d", "conv3d", "linear", "attention", "encoder", "decoder", "function"),
}
"""Words in the names of what has to do with normalization and is no such layer."""

_NOT_SEARCHED = {"__pycache__", "node_modules", "site-packages", "venv", "env", "build", "dist"}


@dataclass(frozen=True)
class Candidate:
    """Something to check, or a file in which there is nothing.

    Args:
        target: What to check, as the command line takes it; or the file alone.
        named: Whether the user named the target or its file, rather than a folder that holds it.
        problem: Why there is nothing to check.
        unreadable: Whether that is since it cannot be read at all.
    """

    target: str
    named: bool = True
    problem: str = ""
    unreadable: bool = False


def candidates(given: Iterable[str]) -> list[Candidate]:
    """Replace files and folders by the layers in them; a target with a name, or in a module, stays as it is."""
    found: dict[str, Candidate] = {}
    for target in given:
        for candidate in _candidates_of(target):
            found.setdefault(candidate.target, candidate)
    return list(found.values())


def place_of(target: str) -> tuple[str | None, int | None]:
    """Return the file of a target, and the line of its definition or of what keeps the file from being read.

    None stands for what cannot be told without running something.
    """
    found = re.match(r"(.+\.py)(?::([\w.]+))?$", target)
    if found is None:
        return None, None
    file, name = found[1], (found[2] or "").partition(".")[0]
    try:
        tree = ast.parse(Path(file).read_bytes(), file)
    except SyntaxError as error:
        return file, error.lineno
    except (OSError, ValueError):
        return file, None
    return file, next((node.lineno for node in _defined(tree.body) if node.name == name), None)


def _candidates_of(target: str) -> Iterator[Candidate]:
    path = Path(target)
    if path.is_dir():
        files = list(_files_in(path))
        if not files:
            yield Candidate(target, problem="the folder holds no Python file", unreadable=True)
        for file in files:
            yield from _layers_in(str(file), named=False)
    elif target.endswith(".py"):
        yield from _layers_in(target, named=True)
    else:
        yield Candidate(target)


def _files_in(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in _NOT_SEARCHED and not name.startswith("."))
        for name in sorted(names):
            file = Path(place, name)
            if name.endswith(".py") and (name != "__init__.py" or file.stat().st_size):
                yield file


def _layers_in(file: str, *, named: bool) -> Iterator[Candidate]:
    try:
        tree = ast.parse(Path(file).read_bytes(), file)
    except OSError as error:
        yield Candidate(file, named, f"it cannot be read: {error.strerror}", unreadable=True)
        return
    except (SyntaxError, ValueError) as error:
        line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
        yield Candidate(file, named, f"{type(error).__name__}: {error.args[0]}{line}", unreadable=True)
        return
    defined = list(dict.fromkeys(_defined(tree.body)))
    names = layer_names(defined)
    for name in names:
        yield Candidate(f"{file}:{name}", named)
    if not names:
        listed = ", ".join(node.name for node in defined)
        yield Candidate(file, named, f"no name tells of a normalization; it defines {listed or 'nothing'}")


_Definition = ast.ClassDef | ast.FunctionDef


def _defined(body: Sequence[ast.stmt]) -> Iterator[_Definition]:
    """The classes and functions of a module, those inside of if and try too."""
    for node in body:
        if isinstance(node, _Definition):
            yield node
        elif isinstance(node, ast.If | ast.Try):
            yield from _defined(node.body)
            yield from _defined(node.orelse)


def layer_names(defined: Iterable[_Definition]) -> list[str]:
    """Choose the names that tell a family; where there are none, those that tell a normalization at all."""
    likely = [node for node in defined if _may_be_a_layer(node)]
    by_family = [node.name for node in likely if family_of(node.name) or any(map(family_of, _bases(node)))]
    named = list(dict.fromkeys(by_family or [node.name for node in likely if "norm" in node.name.lower()]))
    return [name for name in named if not name.startswith("_")] or named


def _may_be_a_layer(node: _Definition) -> bool:
    words = set(re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", node.name).lower()))
    if words & _OTHER_THINGS:
        return False
    if isinstance(node, ast.ClassDef):
        return not any(base.endswith(("Function", "TestCase", "Error", "Exception", "Enum")) for base in _bases(node))
    return bool(node.args.posonlyargs or node.args.args or node.args.vararg)


def _bases(node: _Definition) -> list[str]:
    """The names of the classes that a class derives from, without their modules."""
    bases = node.bases if isinstance(node, ast.ClassDef) else []
    return [ast.unparse(base).rpartition(".")[2] for base in bases]
