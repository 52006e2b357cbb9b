"""Which back end is forced here: for the whole process, or for a block in one thread."""

from collections import deque
from contextlib import AbstractContextManager, suppress
from contextvars import ContextVar, Token
from typing import Final

NAMES: Final = ("auto", "numba", "aten", "eager")

_in_block: ContextVar[str | None] = ContextVar("normkit_backend", default=None)
# The process-wide settings, the last of which holds; one that is entered as a context manager leaves, whatever other
# threads have set since. Settings that are never entered are not kept for ever.
_process_wide: "deque[use_backend]" = deque(maxlen=64)


class use_backend(AbstractContextManager["use_backend"]):  # noqa: N801  (used like a function, as torch.no_grad is)
    """Force a back end: for the whole process or, as a context manager, for a block in this thread.

    Args:
        name: "numba", "aten", "eager", or "auto" to let each input choose. A forced back end that cannot take an
            input raises a RuntimeError that says why.

    Raises:
        ValueError: no such back end.

    >>> import normkit
    >>> with normkit.use_backend("eager"):
    ...     y = normkit.BatchNorm1d(3)(torch.randn(8, 3))
    """

    def __init__(self, name: str) -> None:
        if name not in NAMES:
            raise ValueError(f"expected a back end out of {', '.join(NAMES)}; got {name!r}")
        self.name = name
        self._tokens: list[Token[str | None]] = []
        _process_wide.append(self)

    def __enter__(self) -> "use_backend":
        with suppress(ValueError):  # entered before
            _process_wide.remove(self)
        self._tokens.append(_in_block.set(self.name))
        return self

    def __exit__(self, *exception: object) -> None:
        _in_block.reset(self._tokens.pop())


def forced_backend() -> str:
    """Return the back end that is forced here, or "auto"."""
    return _in_block.get() or (_process_wide[-1].name if _process_wide else "auto")


def anything_is_set() -> bool:
    """Whether a back end has been named at all, if only "auto": a quick look for the smallest inputs."""
    return bool(_process_wide) or _in_block.get() is not None
