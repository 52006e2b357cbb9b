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
from typing import Any, Final, NamedTuple

from llvmlite import binding

from normkit.backends import processor
from normkit.backends.numba import kernel_files
from normkit.backends.numba.numba_settings import assigned, settings

ENTRY: Final = "kernel"
"""The name of the function in the object code of a kernel."""

logger = logging.getLogger("normkit")

FOUND: Final[list["Found"]] = []
"""The kernels of this process, in the order in which they were first needed."""

_said: Final[set[str]] = set()  # of what was said, as each is said once in a process


class Found(NamedTuple):
    """Where a kernel came from.

    Args:
        file: Its name on disk.
        compiled: Whether this process compiled it, as it was not on disk.
        problem: Why it could not be kept there; None: it is.
    """

    file: str
    compiled: bool
    problem: str | None


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
    problem = None
    try:
        code = _verified(kernel_files.read(file), identity)
        if code is None:
            kernel_files.prepare()
    except OSError as error:
        code, problem = None, str(error)
    compiled = code is None
    if code is None:
        code = _compile(module, choices, problem)
        problem = problem or _keep(file, identity, code)
    FOUND.append(Found(file, compiled, problem))
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


def _compile(module: str, choices: tuple[Any, ...], problem: str | None) -> bytes:
    """Compile a kernel; a line says so before all the waiting, once in a process."""
    if problem is None:
        _say(
            "kept",
            "normkit compiles kernels for this processor, some seconds each; they are kept in "
            f"{kernel_files.folder()} for later processes",
        )
    else:
        _say_unkept(problem)
    began = time.perf_counter()
    code: bytes = import_module(f"{__package__}.{module}").make_kernel(*choices)
    logger.info("compiled kernel %s in %.1f s", module, time.perf_counter() - began)
    return code


def _keep(file: str, identity: bytes, code: bytes) -> str | None:
    """Keep the code of a kernel; return why it cannot be."""
    names = assigned()
    if names:
        return f"this program has set {', '.join(names)} in numba.config, which no later process can know"
    try:
        kernel_files.write(file, _digest(identity, code) + code)
    except OSError as error:
        _say_unkept(str(error))
        return str(error)
    return None


def _say_unkept(problem: str) -> None:
    _say(
        "unkept",
        "normkit compiles kernels anew in each process, some seconds each, as they cannot be kept on disk: "
        f"{problem}. Mend that, or set NUMBA_CACHE_DIR to a folder of your own",
    )


def _say(kind: str, message: str) -> None:
    """Write a line to the log, which Python prints to stderr unless the program has set up logging otherwise.

    It is no warning of Python's, as a program or a test suite may turn those into errors.
    """
    if kind not in _said:
        _said.add(kind)
        logger.warning(message)


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
