"""Who is told when a kernel runs: for tools that say what happens to an input."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

_watchers: Final[list[Callable[[], None]]] = []


@contextmanager
def watched_kernels(watcher: Callable[[], None]) -> Iterator[None]:
    """Call a function before each forward pass of a norm that a kernel runs, as long as the block lasts."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def tell_watchers() -> None:
    """Say that a kernel is about to run."""
    for watcher in _watchers:
        watcher()
