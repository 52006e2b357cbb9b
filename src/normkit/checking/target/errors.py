"""The errors that stop a check, as opposed to the findings of a check."""

import traceback
from collections.abc import Sequence

from normkit.checking.report import Finding
from normkit.errors import UserError

RAISED = (Exception, SystemExit)
"""The exceptions of the target's code that are no errors of the check."""


class CannotRunError(UserError):
    """The target could not be loaded, built or called, or ended its process; the message says what happened.

    Args:
        message: What was tried or what happened, and which option helps.
        findings: What was found before that.
    """

    def __init__(self, message: str, findings: Sequence[Finding] = ()) -> None:
        super().__init__(message)
        self.findings = tuple(findings)


class TargetError(Exception):
    """The target raised an exception while an experiment ran it.

    Args:
        error: What it raised.
        doing: The call that raised.
    """

    def __init__(self, error: BaseException, doing: str) -> None:
        self.error = error
        self.doing = doing
        self.raised = describe(error)
        frames = [f for f in traceback.extract_tb(error.__traceback__) if not _ours(f.filename)]
        self.depth, self.line = len(frames), frames[-1].lineno or 0 if frames else 0
        super().__init__(f"{doing} raised {self.raised}")


def describe(error: BaseException) -> str:
    """Write one line for an exception: its type, the first line of its message, its line in the target's code."""
    message = (str(error).strip().splitlines() or [""])[0]
    if len(message) > 160:
        message = message[:157] + "..."
    frames = traceback.extract_tb(error.__traceback__)
    frame = next((f for f in reversed(frames) if not _ours(f.filename)), None)
    where = f" ({frame.filename.rpartition('/')[2]}:{frame.lineno})" if frame else ""
    return f"{type(error).__name__}: {message}{where}" if message else f"{type(error).__name__}{where}"


def _ours(filename: str) -> bool:
    path = filename.replace("\\", "/")
    return "/normkit/" in path or "/site-packages/" in path or "/lib/python" in path or path.startswith("<")
