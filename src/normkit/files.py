"""Files that are whole at any moment: written under another name, then renamed."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from normkit.errors import UserError


def require_place(path: Path, endings: Sequence[str]) -> None:
    """Refuse a path that nothing can be written to, before all the work.

    Args:
        path: The file.
        endings: Those that it may have.
    Raises:
        UserError: another ending, or no such folder.
    """
    if path.suffix not in endings:
        *others, last = endings
        listed = f"{', '.join(others)} or {last}" if others else last
        raise UserError(f"expected a file that ends in {listed}; got {path}")
    if not path.parent.is_dir():
        raise UserError(f"the folder of {path} does not exist: make it, or name another file")


def remove_partial(folder: Path) -> None:
    """Remove what ``write_atomic`` left in a folder where its process was killed."""
    for path in folder.glob(".*.part"):
        path.unlink(missing_ok=True)


def write_atomic(path: Path, content: bytes, advice: str = "name another file") -> None:
    """Replace a file by this content, or leave it as it was.

    Args:
        path: The file.
        content: What it shall hold.
        advice: What the user may do where it cannot be written.
    Raises:
        UserError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}. {advice[0].upper()}{advice[1:]}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
