"""The error that stands for a user's mistake."""


class UserError(ValueError):
    """Something the user gave cannot be used: the message says what was expected, what arrived and what to do.

    The command line prints the message alone and exits with status 2; every other exception is a bug and keeps
    its traceback.
    """
