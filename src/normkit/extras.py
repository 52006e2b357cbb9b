"""Packages that an installation may be without, and the error that says how to add them."""

from importlib.util import find_spec

from normkit.errors import UserError


class MissingExtraError(UserError, ImportError):
    """A package of one of the extras is not installed."""


def require(doing: str, extra: str, *packages: str) -> None:
    """Refuse to begin what needs packages that are not installed.

    Args:
        doing: What needs them, as the error begins.
        extra: The extra that brings them.
        packages: What is imported.
    Raises:
        MissingExtraError: one of them is missing.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise MissingExtraError(
            f"{doing} needs {' and '.join(missing)}: run pip install '.[{extra}]' in the folder of normkit's source"
        )
