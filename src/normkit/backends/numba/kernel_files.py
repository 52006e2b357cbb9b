"""The files that hold kernels: nobody but this user, or the superuser, can have written what is read.

Machine code runs with all rights of the process that loads it, so what somebody else may have put into a folder is
never read. What is written only its owner can read, and it is whole at any moment.
"""

import os
import tempfile
import time
from pathlib import Path
from stat import S_ISREG
from typing import Final

_PART: Final = ".part"  # the ending of a file that is being written
_ABANDONED: Final = 600.0  # seconds; nobody takes as long to write a part file
_OTHERS_WRITE: Final = 0o022
_READ: Final = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))


def folder() -> Path:
    """Return where kernels are kept: in NUMBA_CACHE_DIR if that is set, or else where this user's programs keep things.

    Raises:
        OSError: the user has no home.
    """
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    if chosen:
        return Path(chosen).absolute() / "normkit"
    from platformdirs import user_cache_path

    try:
        found = user_cache_path("normkit", appauthor=False)
    except RuntimeError as error:
        raise FileNotFoundError(f"this user has no home: {error}") from None
    if not found.is_absolute():
        raise FileNotFoundError("this user has no home")
    return found


def read(name: str) -> bytes | None:
    """Return what a file holds; None: there is none.

    Raises:
        OSError: somebody else may have written it, or it cannot be read.
    """
    parent = folder()
    path = parent / name
    try:
        _check(parent, parent.stat())
        file = os.open(path, _READ)
    except FileNotFoundError:
        return None
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(file)  # of what is read, whatever takes its name meanwhile
        if not S_ISREG(status.st_mode):
            raise PermissionError(f"{path} is not a plain file")
        _check(path, status)
        return opened.read()


def prepare() -> Path:
    """Make the folder, remove what killed processes have left in it, and return it.

    Raises:
        OSError: nothing can be kept there, or somebody else may write to it.
    """
    path = folder()
    missing = [part for part in (path, *path.parents) if not part.exists()]
    if missing and _user() == 0:  # what it leaves in the folder of another user is in that user's way
        _check_owner(missing[-1].parent, missing[-1].parent.stat())
    for part in reversed(missing):
        part.mkdir(mode=0o700, exist_ok=True)
    _check(path, path.stat())
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"{path} cannot be written to")
    for left in path.glob(f"*{_PART}"):
        try:
            if time.time() - left.stat().st_mtime > _ABANDONED:
                left.unlink()
        except OSError:  # another process was faster
            continue
    return path


def write(name: str, content: bytes) -> None:
    """Keep a file, whole or not at all, in the folder that :func:`prepare` has made.

    Raises:
        OSError: it cannot be written.
    """
    path = folder() / name
    file, part = tempfile.mkstemp(suffix=_PART, prefix=name, dir=path.parent)  # of mode 0600
    try:
        with os.fdopen(file, "wb") as opened:
            opened.write(content)
        Path(part).replace(path)
    except OSError:
        Path(part).unlink(missing_ok=True)
        raise


def _check(path: Path, status: os.stat_result) -> None:
    """Refuse what somebody else may have written."""
    _check_owner(path, status)
    if _user() is not None and status.st_mode & _OTHERS_WRITE:
        raise PermissionError(f"others may write to {path} (chmod go-w forbids it)")


def _check_owner(path: Path, status: os.stat_result) -> None:
    user = _user()
    if user is not None and status.st_uid not in (user, 0):  # the superuser could change this library as well
        raise PermissionError(f"{path} belongs to user {status.st_uid}, and this process runs as user {user}")


def _user() -> int | None:
    """Return the user of this process; None where files have neither owner nor mode, as in Windows."""
    return os.geteuid() if hasattr(os, "geteuid") else None
