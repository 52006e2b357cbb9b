"""The memory that a batch needs, checked before anything is allocated."""

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from normkit.errors import UserError
from normkit.train.config import TrainConfig
from normkit.train.model import trace

COPIES = 3
"""Copies of every activation that a training step holds: its value, its gradient, and what a layer works with."""


def bytes_per_image(config: TrainConfig) -> int:
    """Estimate the bytes that one image of a batch needs in a training step."""
    with torch.device("meta"):  # shapes alone
        traces = [trace(norm, "torch", image_size=config.image_size) for norm in config.norms]
    elements = max(sum(math.prod(shape) for _, shape in layers) for layers in traces)
    return COPIES * 4 * (elements + config.image_size**2)


def available_bytes() -> int | None:
    """Return the bytes that this process may still take, or None where the system does not say."""
    lines = _read("/proc/meminfo").splitlines()
    limits = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    limit, used = _read("/sys/fs/cgroup/memory.max").strip(), _read("/sys/fs/cgroup/memory.current").strip()
    if limit.isdigit() and used.isdigit():
        limits.append(int(limit) - int(used))
    if not limits and "SC_PHYS_PAGES" in os.sysconf_names:
        limits.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min(limits, default=None)


def check_batch(config: TrainConfig, train_count: int) -> None:
    """Raise ``UserError`` if a batch needs more memory than there is, or more images than there are."""
    each = bytes_per_image(config)
    available = available_bytes()
    needed = config.batch_size * each
    if available is not None and each > available:
        raise UserError(
            f"not enough memory: an image of {config.image_size}×{config.image_size} needs about {_size(each)}, "
            f"and {_size(available)} are available: use a smaller `image_size`"
        )
    if available is not None and needed > available:
        fitting = max(1, min(available // each, train_count))
        raise UserError(
            f"not enough memory: a batch of {config.batch_size:,} images needs about {_size(needed)}, "
            f"and {_size(available)} are available: use `batch_size={fitting}` or less"
        )
    if config.batch_size > train_count:
        raise UserError(
            f"a batch of {config.batch_size:,} images is more than the {train_count:,} training images: "
            f"use `batch_size={train_count}` or less"
        )


@contextmanager
def shortage_explained(batch_size: int) -> Iterator[None]:
    """Turn a failed allocation within into a ``UserError``, for when the estimate was too low."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise UserError(
            f"not enough memory for a batch of {batch_size:,} images: start again with a smaller `batch_size`"
        ) from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error is a failed allocation."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "allocate memory" in str(error))


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            break
        count /= 1024
    return f"{count:,.1f} {unit}"
