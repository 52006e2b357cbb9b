"""What stops a check, as opposed to what a check finds."""

import traceback

from normkit.errors import UserError


class CannotRunError(UserError):
    """The target could not be loaded, built or called; the message says what was tried and which option helps."""


class TargetError(Exception):
    """The target raised an exception while an experiment ran it.

    Args:
        error: What it raised.
        doing: The call that raised.
    """

    def __init__(self, error: BaseException, doing: str) -> None:
        self.error = error
        self.doing = doing
        super().__init__(f"{doing} raised {describe(error)}")


def describe(error: BaseException) -> str:
    """One line for an exception: its type, the first line of its message, and where in the target it came from."""
    message = (str(error).strip().splitlines() or [""])[0]
    if len(message) > 160:
        message = message[:157] + "..."
    frames = traceback.extract_tb(error.__traceback__)
    place = next((f for f in reversed(frames) if not _ours(f.filename)), None)
    where = f" ({place.filename.rpartition('/')[2]}:{place.lineno})" if place else ""
    return f"{type(error).__name__}: {message}{where}" if message else f"{type(error).__name__}{where}"


def _ours(filename: str) -> bool:
    path = filename.replace("\\", "/")
    return "/normkit/" in path or "/site-packages/" in path or "/lib/python" in path or path.startswith("<")
