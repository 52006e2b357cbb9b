"""How many threads a command may be told to compute with."""

from typing import Final

from normkit.errors import UserError

MOST: Final = 256  # far more of them crash OpenMP


def check_threads(threads: int) -> None:
    """Raise a UserError where a number of threads cannot be meant."""
    if not 1 <= threads <= MOST:
        raise UserError(f"--threads must be between 1 and {MOST}, not {threads}")
