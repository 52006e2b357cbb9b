"""Kernels as machine code: kept on disk, and run from there without Numba, whose import takes longer than all the rest.

A file holds the object code of one kernel behind a digest of the code and of all that it was made of and for: which
kernel it is, sources, versions, settings and processor. A file under a wrong name is no more loaded than a damaged one.
"""

import hashlib
import logging
import os
import sys
import time
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from threading import RLock
from typing import Any, Final

from llvmlite import binding

from normkit.backends import processor
from normkit.backends.numba import kernel_files
from normkit.backends.numba.numba_settings import assigned, settings

ENTRY: Final = "kernel"
"""The name of the function in the object code of a kernel."""

logger = logging.getLogger("normkit")

_warned: Final[list[bool]] = []  # not empty: it was said that kernels are not kept

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
    words = [choice.__name__ if isinstance(choice, type) else str(int(choice)) for choice in choices]
    identity = _identity(name, *words)
    file = f"{'-'.join((name, *words, hashlib.sha256(identity).hexdigest()[:16]))}.o"
    try:
        code = _verified(kernel_files.read(file), identity)
        if code is None:
            kernel_files.prepare()
        problem = None
    except OSError as error:
        code, problem = None, error
    if code is None:
        code = _compile(module, choices, problem)
        if problem is None:
            _keep(file, identity, code)
    return _load(code)


def _identity(*kernel: str) -> bytes:
    """Return all that the code of a kernel may depend on."""
    versions = [metadata.version(package) for package in ("numba", "llvmlite", "numpy")]
    made_for = binding.get_process_triple(), processor.name(), processor.features()
    return repr((kernel, _sources(), sys.version_info[:3], versions, made_for, settings())).encode()


@cache
def _sources() -> str:
    """Return a digest of all sources of kernels."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _verified(content: bytes | None, identity: bytes) -> bytes | None:
    """Return the code that a file holds; None where there is none, it is damaged, or is that of another kernel."""
    if content is None:
        return None
    size = hashlib.sha256().digest_size
    digest, code = content[:size], content[size:]
    return code if digest == _digest(identity, code) else None


def _digest(identity: bytes, code: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(identity).digest() + code).digest()


def _compile(module: str, choices: tuple[Any, ...], problem: OSError | None) -> bytes:
    if problem is not None:
        _warn_unkept(problem)
    began = time.perf_counter()
    code: bytes = import_module(f"{__package__}.{module}").make_kernel(*choices)
    logger.info("compiled kernel %s in %.1f s", module, time.perf_counter() - began)
    return code


def _keep(file: str, identity: bytes, code: bytes) -> None:
    names = assigned()
    if names:
        logger.info("a kernel is not kept, as this program has set %s in numba.config", ", ".join(names))
        return
    try:
        kernel_files.write(file, _digest(identity, code) + code)
    except OSError as error:
        _warn_unkept(error)


def _warn_unkept(problem: OSError) -> None:
    """Say once in a process why kernels are neither loaded nor kept, and what to do."""
    if not _warned:
        _warned.append(True)
        logger.warning(
            "normkit compiles kernels anew in each process, as they cannot be kept on disk: %s. Mend that, or set "
            "NUMBA_CACHE_DIR to a folder of your own",
            problem,
        )


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
