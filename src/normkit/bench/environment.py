"""The machine, the versions and the allocator of a measurement."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import torch

from normkit.bench.cases import DEFAULT, RETAINED
from normkit.bench.section import Section

KEEP_MEMORY: Final = {
    "MALLOC_MMAP_THRESHOLD_": "4294967296",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
"""With these, glibc's allocator hands freed memory out again rather than back to the system."""

BUSY: Final = 0.25
"""The load of each core above which a machine is not quiet."""

_CACHES: Final = "/sys/devices/system/cpu/cpu0/cache"

REGIMES: Final = {
    DEFAULT: "the C library's allocator as it is",
    RETAINED: "an allocator that keeps its memory: "
    + ", ".join(f"{name}={value}" for name, value in KEEP_MEMORY.items()),
}


def variables(regime: str, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables of a process in a regime."""
    without = {name: value for name, value in base.items() if name not in KEEP_MEMORY}
    return {**without, **KEEP_MEMORY} if regime == RETAINED else without


def describe() -> dict[str, str]:
    """Describe the machine, the versions and the allocator of this process."""
    facts = {
        "CPU": cpu_name(),
        "cores": str(os.cpu_count()),
        "second cache": _read(f"{_CACHES}/index2/size"),
        "last cache": _read(f"{_CACHES}/index3/size"),
        "threads": str(torch.get_num_threads()),
        "system": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}".rstrip(", "),
        "huge pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "versions": ", ".join(f"{name} {_version(name)}" for name in ("normkit", "torch", "numpy", "numba"))
        + f", Python {platform.python_version()}",
    }
    if hasattr(os, "getloadavg"):
        facts["load before"] = f"{os.getloadavg()[0]:.1f}"
    if os.environ.get("LD_PRELOAD"):
        facts["preloaded"] = os.environ["LD_PRELOAD"]
    return {name: value for name, value in facts.items() if value}


def busy(facts: Mapping[str, str]) -> str:
    """Say that others computed on the machine before a measurement; nothing where they did not."""
    load, cores = float(facts.get("load before", "0")), int(facts.get("cores", "1"))
    if load <= BUSY * cores:
        return ""
    return (
        f"This machine was busy before: a load of {load:.1f} on {cores} core{'s' * (cores > 1)}. Times and ratios are "
        "not to be trusted; measure again when nothing else runs."
    )


def section(facts: Mapping[str, str]) -> Section:
    """Return the facts as a table."""
    note = busy(facts)
    return Section("Machine", ("what", "is"), tuple(facts.items()), (note,) if note else ())


def cpu_name() -> str:
    """Return the CPU's name and the widest vector instructions that torch uses on it."""
    name = platform.processor() or platform.machine()
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
