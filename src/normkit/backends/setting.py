"""Which back end is forced here: for the whole process, or for a block in one thread.

A block is a context variable, so it holds in its thread (in asyncio: in its task), as torch.no_grad and torch.autocast
do. A backward pass on the CPU runs in the thread that calls it. What other threads compute follows the setting of the
process: the replicas of DataParallel, and checkpoints that a backward pass on CUDA computes anew.
"""

import warnings
from contextlib import AbstractContextManager
from contextvars import ContextVar, Token
from typing import Final

NAMES: Final = ("auto", "numba", "aten", "eager")

_in_block: ContextVar[str | None] = ContextVar("normkit_backend", default=None)
_of_process = "auto"


def set_backend(name: str) -> None:
    """Force a back end in the whole process, in all of its threads; blocks of :class:`use_backend` go before it.

    Args:
        name: "numba", "aten", "eager", or "auto" to let each input choose. A forced back end that cannot take an
            input raises a RuntimeError that says why.

    Raises:
        ValueError: no such back end.

    >>> import normkit
    >>> normkit.set_backend("eager")
    >>> normkit.choose(torch.randn(8, 3)).name
    'eager'
    >>> normkit.set_backend("auto")
    """
    global _of_process  # noqa: PLW0603  (there is one process)
    _check_name(name)
    _of_process = name


class use_backend(AbstractContextManager["use_backend"]):  # noqa: N801  (used like a function, as torch.no_grad is)
    """Force a back end for a block, in this thread only; :func:`set_backend` does so for the whole process.

    Threads that are started in the block, such as the replicas of DataParallel, do not see it.

    Args:
        name: As for :func:`set_backend`.

    Raises:
        ValueError: no such back end.

    >>> import normkit
    >>> with normkit.use_backend("eager"):
    ...     y = normkit.BatchNorm1d(3)(torch.randn(8, 3))
    """

    _was_entered = True  # unless it is made: a name that is refused is told of already

    def __init__(self, name: str) -> None:
        _check_name(name)
        self.name = name
        self._tokens: list[Token[str | None]] = []
        self._was_entered = False

    def __enter__(self) -> "use_backend":
        self._was_entered = True
        self._tokens.append(_in_block.set(self.name))
        return self

    def __exit__(self, *exception: object) -> None:
        _in_block.reset(self._tokens.pop())

    def __del__(self) -> None:
        if not self._was_entered:
            warnings.warn(
                f"normkit.use_backend({self.name!r}) does nothing outside of a with statement; for the whole process, "
                f"call normkit.set_backend({self.name!r})",
                RuntimeWarning,
                stacklevel=2,
            )


def forced_backend() -> str:
    """Return the back end that is forced here, or "auto"."""
    return _in_block.get() or _of_process


def is_forced() -> bool:
    """Whether a back end is forced here."""
    return forced_backend() != "auto"


def _check_name(name: str) -> None:
    if name not in NAMES:
        raise ValueError(f"expected a back end out of {', '.join(NAMES)}; got {name!r}")
