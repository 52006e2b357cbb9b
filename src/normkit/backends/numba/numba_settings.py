"""Numba's settings: the variables, the file and the assignments that may change the code which it makes."""

import os
from contextlib import suppress
from importlib import util
from pathlib import Path
from typing import Final

_FILE: Final = ".numba_config.yaml"  # which Numba reads in the current folder, below the variables

# Settings that change no code, and that programs do change. Any other, unknown ones too, may change it.
_HARMLESS: Final = {
    "NUMBA_CACHE_DIR", "NUMBA_CACHE_LOCATOR_CLASSES", "NUMBA_DISABLE_PERFORMANCE_WARNINGS", "NUMBA_NUM_THREADS",
    "NUMBA_THREADING_LAYER", "NUMBA_THREADING_LAYER_PRIORITY",
}  # fmt: skip


def settings() -> tuple[list[tuple[str, str]], bytes | None]:
    """Return the variables that may change code, and the content of the file; Numba need not be loaded for it."""
    found = sorted(item for item in os.environ.items() if item[0].startswith("NUMBA_") and item[0] not in _HARMLESS)
    file, content = Path(_FILE), None
    with suppress(OSError):
        content = file.read_bytes() if file.is_file() else None
    return found, content


def assigned() -> list[str]:
    """Return what this program has assigned to ``numba.config``, which :func:`settings` does not see."""
    from numba.core import config

    spec = util.spec_from_file_location("normkit_numba_config", config.__file__)
    assert spec is not None
    assert spec.loader is not None
    fresh = util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    return sorted(
        name
        for name, value in vars(fresh).items()
        if name.isupper() and f"NUMBA_{name.removeprefix('NUMBA_')}" not in _HARMLESS
        if getattr(config, name, value) != value
    )
