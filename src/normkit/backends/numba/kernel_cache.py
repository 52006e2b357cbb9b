"""Kernels as machine code: kept on disk, and run from there without Numba, whose import takes longer than all the rest.

A file holds the object code of one kernel behind a digest of it. Its name tells what the code was made of and for, so
that whatever changes gives another file.
"""

import hashlib
import logging
import os
import time
from contextlib import suppress
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from threading import RLock, get_ident
from typing import Any, Final

from llvmlite import binding

from normkit.backends import processor

ENTRY: Final = "kernel"
"""The name of the function in the object code of a kernel."""

_SLOW: Final = 2.0  # seconds; a first use that takes longer is worth a line in the log

# Numba's variables that change the code which it makes, beside those that name a processor
_SETTINGS: Final = tuple(
    f"NUMBA_{name}" for name in ("ENABLE_AVX", "OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "DEBUGINFO", "BOUNDSCHECK")
)

logger = logging.getLogger("normkit")

_loading = RLock()
if hasattr(os, "register_at_fork"):  # a child has no thread that would let go of it
    os.register_at_fork(before=_loading.acquire, after_in_parent=_loading.release, after_in_child=_loading.release)


@cache
def address(module: str, *choices: Any) -> int:
    """Return the address of a kernel: the one that ``make_kernel`` of a module makes of some dtypes and choices.

    Threads that need it at once wait for the first of them; nobody waits for a kernel that is there.
    """
    with _loading:
        return _once(module, *choices)


@cache
def _once(module: str, *choices: Any) -> int:
    return find(module, *choices)


def find(module: str, *choices: Any) -> int:
    """Put a kernel into memory, and return its address.

    The module is imported, and with it Numba, only if no earlier process has left the kernel on disk.
    """
    name = module.replace(".", "_")
    words = (choice.__name__ if isinstance(choice, type) else str(int(choice)) for choice in choices)
    file = f"{name}-{''.join(f'{word}-' for word in words)}{_digest()}.o"
    code = _read(file)
    if code is None:
        began = time.perf_counter()
        code = import_module(f"{__package__}.{module}").make_kernel(*choices)
        took = time.perf_counter() - began
        if _write(file, code) and took > _SLOW:
            logger.info("compiled kernel %s in %.1f s; the next process loads it from disk", name, took)
    return _load(code)


@cache
def _digest() -> str:
    """Return a digest of everything that the code of a kernel may depend on."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    made_by = (metadata.version(package) for package in ("numba", "llvmlite", "numpy"))
    made_for = binding.get_process_triple(), processor.name(), processor.features(), *map(os.environ.get, _SETTINGS)
    digest.update(repr((*made_by, *made_for)).encode())
    return digest.hexdigest()[:16]


def _folders() -> list[Path]:
    """Return where kernels may be kept: beside the sources, or else with what the user's programs keep."""
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return [Path(chosen) / "normkit"]
    folders = [Path(__file__).parent / "__pycache__"]
    with suppress(RuntimeError):  # a user without a home
        folders.append(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "normkit")
    return folders


def _read(name: str) -> bytes | None:
    """Return the code that a file holds; None where there is none, or it is damaged."""
    for folder in _folders():
        try:
            kept = (folder / name).read_bytes()
        except OSError:
            continue
        size = hashlib.sha256().digest_size
        if hashlib.sha256(kept[size:]).digest() == kept[:size]:
            return kept[size:]
    return None


def _write(name: str, code: bytes) -> bool:
    """Keep the code of a kernel, whole or not at all; False if it cannot be."""
    errors = []
    for folder in _folders():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part = folder / f"{name}.{os.getpid()}.{get_ident()}"  # another process or thread may write the same
            try:
                part.write_bytes(hashlib.sha256(code).digest() + code)
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
        except OSError as error:
            errors.append(str(error))
        else:
            return True
    logger.info("kernels are compiled anew in each process, as they cannot be kept on disk: %s", "; ".join(errors))
    return False


_engines: list[Any] = []  # which own the code that is in use


def _load(code: bytes) -> int:
    """Put the code of a kernel into memory, and return the address of its function."""
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    machine = binding.Target.from_default_triple().create_target_machine(jit=True)
    engine = binding.create_mcjit_compiler(binding.parse_assembly(""), machine)
    engine.add_object_file(binding.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _engines.append(engine)
    found: int = engine.get_function_address(ENTRY)
    return found
