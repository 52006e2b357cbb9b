"""Load what a TARGET names: ``path/to/file.py:Name`` or ``package.module:Name``."""

import importlib
import importlib.util
import inspect
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from normkit.checking.target.errors import CannotRunError, describe
from normkit.checking.target.names import family_of


@dataclass(frozen=True)
class ImportEffects:
    """The effects of importing a target on the process around it.

    Args:
        changes: The global state that it changed, in words.
        output: The text that it printed.
    """

    changes: tuple[str, ...] = ()
    output: str = ""


def load(target: str) -> Any:
    """Import the module and get the object.

    Raises:
        CannotRunError: the file or module does not exist, fails when imported, or has no such name.
    """
    location, _, name = target.rpartition(":")
    if len(location) < 2:  # no colon, or only that of a Windows drive
        location, name = target, ""
    is_file = location.endswith(".py") or "/" in location or "\\" in location
    module = _import(location, is_file=is_file)
    if not name:
        return _only_candidate(module, target)
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            raise CannotRunError(
                f"{location} has no {name!r}; it defines: {', '.join(_defined(module)) or 'nothing callable'}"
            )
        found = getattr(found, part)
    return found


def _import(location: str, *, is_file: bool) -> ModuleType:
    if is_file and not Path(location).is_file():
        raise CannotRunError(f"expected a Python file, but {location} does not exist: give path/to/file.py:Name")
    try:
        return _import_file(Path(location).resolve()) if is_file else _import_module(location)
    except CannotRunError:
        raise
    except SystemExit as error:
        raise CannotRunError(
            f"importing {location} ended the program (exit {error.code}): put what is meant for a script under "
            'if __name__ == "__main__":'
        ) from error
    except Exception as error:
        raise CannotRunError(f"importing {location} raised {describe(error)}") from error


def _import_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise CannotRunError(
                f"no module is called {name!r}: give package.module:Name for an importable module, "
                "path/to/file.py:Name for a file"
            ) from error
        raise


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name, inside its package where it belongs to one."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    sys.path.insert(0, str(folder))
    name = ".".join(parts)
    if len(parts) > 1:
        return importlib.import_module(name)
    name = f"normkit_target_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise CannotRunError(f"{path} cannot be imported as Python code")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _defined(module: ModuleType) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ == module.__name__
    ]


def _only_candidate(module: ModuleType, target: str) -> Any:
    names = _defined(module)
    likely = [name for name in names if family_of(name) or "norm" in name.lower()]
    if len(likely) == 1:
        return getattr(module, likely[0])
    listed = ", ".join(f"{target}:{name}" for name in likely or names) or "it defines nothing callable"
    raise CannotRunError(f"expected TARGET:Name, but {target} names no object. Which one? {listed}")
