"""The errors that stand for a user's mistake and for one of ours."""

REPORT_TO = "https://github.com/normkit/normkit/issues"
"""Where a bug is to be reported."""


class UserError(ValueError):
    """Something the user gave cannot be used: the message says what was expected, what arrived and what to do.

    The command line prints the message alone and exits with status 2; every other exception is a bug: it keeps its
    traceback, and the status is 3.
    """


class BugError(RuntimeError):
    """normkit's own code failed, in a process that it started: the message holds the traceback from there.

    Args:
        doing: What it was doing.
        trace: The traceback.
    """

    def __init__(self, doing: str, trace: str) -> None:
        super().__init__(f"normkit's own code failed while {doing}; please report it at {REPORT_TO}\n{trace.rstrip()}")
